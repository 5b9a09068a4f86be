"""Do the numbers hold that somebody acts on?"""
