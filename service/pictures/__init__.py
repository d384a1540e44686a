"""From a file to 28x28 pixels as the network was taught to see them."""
