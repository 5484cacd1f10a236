// Package pgenv frees tests from the settings of the shell they are run in, which
// may be those of a cluster: its env.sh exports PGPORT and others that PostgreSQL's
// programs and drivers heed. Importing it is enough.
package pgenv

import (
	"os"
	"strings"
)

func init() { clear(os.Environ()) }

func clear(environ []string) {
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "PG") || name == "COORDINATOR_DATA_DIRECTORY" || name == "MASTER_DATA_DIRECTORY" {
			os.Unsetenv(name)
		}
	}
}
