"""The panel's tabs, one file each; their order in the panel is :data:`TABS`."""

from fiftyone_ecif.plugin.panel.tab import Tab
from fiftyone_ecif.plugin.panel.tabs.health import HealthTab
from fiftyone_ecif.plugin.panel.tabs.influence import InfluenceTab
from fiftyone_ecif.plugin.panel.tabs.review import ReviewTab
from fiftyone_ecif.plugin.panel.tabs.shift import ShiftTab
from fiftyone_ecif.plugin.panel.tabs.slices import SlicesTab
from fiftyone_ecif.plugin.panel.tabs.suspects import SuspectsTab
from fiftyone_ecif.plugin.panel.tabs.trace import TraceTab

TABS: tuple[type[Tab], ...] = (SuspectsTab, SlicesTab, ReviewTab, InfluenceTab, TraceTab, HealthTab, ShiftTab)
