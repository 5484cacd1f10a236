// Command trunkline is every program of the project: trunkline itself and,
// called by their names, gpconfig, gpstop, gpstart and gpstate.
package main

import (
	"os"

	"github.com/trunkline-db/trunkline/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
