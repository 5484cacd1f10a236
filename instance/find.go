package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// PostgresMajor is the PostgreSQL version a cluster is made of.
const PostgresMajor = "15"

// ErrNoPostgres is matched by the error of [FindPostgres].
var ErrNoPostgres = errors.New("PostgreSQL " + PostgresMajor + " was not found")

// serverPrograms are what a cluster is made and run with.
var serverPrograms = []string{"postgres", "initdb", "pg_basebackup"}

// FindPostgres returns the folder of PostgreSQL's server programs: Debian's,
// else the first complete one in PATH. The error says what is missing and
// which package brings it.
func FindPostgres() (string, error) {
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	return findPostgres(append(debian, filepath.SplitList(os.Getenv("PATH"))...))
}

func findPostgres(dirs []string) (string, error) {
	var other []string
	for _, dir := range dirs {
		if !hasPrograms(dir) {
			continue
		}
		v, err := postgresVersion(dir)
		if err != nil {
			continue
		}
		major, _, _ := strings.Cut(v, ".")
		if major == PostgresMajor {
			return dir, nil
		}
		other = append(other, v+" in "+dir)
	}
	found := ""
	if len(other) > 0 {
		found = " (found only " + strings.Join(other, ", ") + ")"
	}
	return "", fmt.Errorf("%w%s: install it, on Debian with: apt-get install postgresql-%s postgresql-plpython3-%s",
		ErrNoPostgres, found, PostgresMajor, PostgresMajor)
}

func hasPrograms(dir string) bool {
	for _, p := range serverPrograms {
		fi, err := os.Stat(filepath.Join(dir, p))
		if err != nil || fi.IsDir() || fi.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// postgresVersion returns for example "15.13".
func postgresVersion(bindir string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(bindir, "postgres"), "--version").Output()
	if err != nil {
		return "", err
	}
	f := strings.Fields(string(out)) // postgres (PostgreSQL) 15.13 (Debian …)
	if len(f) < 3 {
		return "", fmt.Errorf("unexpected version text %q", out)
	}
	return f[2], nil
}
