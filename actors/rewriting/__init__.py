"""Problems written from seed problems, in the agent's place: the baselines MetaMath and WizardMath.

base        what a way to rewrite says: which operations a task gets, how each is asked for, how its reply is read
metamath    other words, and backward questions
wizardmath  harder in depth, another one in breadth, easier
writer      the Serve replica that plays a task so: one call an operation, the last problem is handed in
"""
