package cli

// version is the release of the program.
const version = "0.1.0"

// serverVersion is how the utilities name the system.
const serverVersion = "postgres (Trunkline) " + version
