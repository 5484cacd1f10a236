package guc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/internal/atomicfile"
)

// lockTimeout bounds the wait for another edit of the same file; an edit
// takes milliseconds.
const lockTimeout = 10 * time.Second

// Set comments out every line of the file that sets name and appends
// "name=raw" as its last line; all else stays as it is, byte for byte. raw is
// written verbatim and must be as the file's syntax wants it (see [IsToken];
// [Quote] makes any value so). The file is replaced atomically and keeps its
// mode and owner. Edits at the same time, also by other processes, wait for
// each other.
func Set(path, name, raw string) error {
	if nameLen(name) != len(name) || name == "" {
		return fmt.Errorf("%q is not a parameter name", name)
	}
	if !IsToken(raw) {
		return fmt.Errorf("value %s of %s must be quoted in a configuration file", raw, name)
	}
	return edit(path, name, name+"="+raw+"\n")
}

// Remove comments out every line of the file that sets name, as Set does.
func Remove(path, name string) error { return edit(path, name, "") }

func edit(path, name, last string) error {
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := commentOut(old, name)
	if last != "" {
		if len(text) > 0 && text[len(text)-1] != '\n' {
			text = append(text, '\n')
		}
		text = append(text, last...)
	}
	if bytes.Equal(text, old) {
		return nil
	}
	return atomicfile.Write(path, text, 0o600)
}

func commentOut(text []byte, name string) []byte {
	out := make([]byte, 0, len(text)+128)
	for line := range bytes.Lines(text) {
		if found, _, _ := scanLine(strings.TrimSuffix(string(line), "\n")); found != "" && strings.EqualFold(found, name) {
			out = append(out, '#')
		}
		out = append(out, line...)
	}
	return out
}

// lockDir takes an advisory lock on a directory: the file itself is replaced
// by each edit and cannot carry one.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockTimeout); ; time.Sleep(10 * time.Millisecond) {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(end) {
			d.Close()
			return nil, fmt.Errorf("%s is locked by another edit of its files: %w", dir, err)
		}
	}
}
