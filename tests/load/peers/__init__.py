"""Our model in the servers a user might pick instead, each as its own documentation has it.

What lies here runs in an environment of its own, with neither our packages nor what they need: it imports its server,
numpy and onnxruntime. The files share no code, so that each reads like what a user of that server would write.
"""
