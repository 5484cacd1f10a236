package pgenv

import (
	"os"
	"testing"
)

func TestClear(t *testing.T) {
	for name, kept := range map[string]bool{"PGPORT": false, "PGOPTIONS": false, "COORDINATOR_DATA_DIRECTORY": false, "PATH": true, "OTHER_PGPORT": true} {
		t.Setenv(name, "x")
		clear(os.Environ())
		if _, there := os.LookupEnv(name); there != kept {
			t.Errorf("%s is there: %v", name, there)
		}
	}
}
