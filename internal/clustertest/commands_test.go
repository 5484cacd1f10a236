package clustertest

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// command is the program with arguments. It is told to end when ctx does.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// follow runs a command to its end, calls f with each line of its standard error
// as it comes, and returns them all.
func follow(t *testing.T, cmd *exec.Cmd, f func(line string)) (said string, err error) {
	t.Helper()
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	s := bufio.NewScanner(errs)
	for s.Scan() {
		lines = append(lines, s.Text())
		f(s.Text())
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	return strings.Join(lines, "\n"), cmd.Wait()
}

// interrupt runs a command and ends it by Ctrl-C when a line of its progress has
// a text; before that it calls first. The command must end with status 130. It
// returns what that said and how long it took.
func interrupt(t *testing.T, cmd *exec.Cmd, at string, first func()) (said string, took time.Duration) {
	t.Helper()
	var asked time.Time
	said, err := follow(t, cmd, func(line string) {
		if !asked.IsZero() || !strings.Contains(line, at) {
			return
		}
		first()
		asked = time.Now()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
	})
	if asked.IsZero() {
		t.Fatalf("it never said %q, and ended with %v\n%s", at, err, said)
	}
	if e := new(exec.ExitError); !errors.As(err, &e) || e.ExitCode() != 130 {
		t.Errorf("it ended with %v, want exit status 130\n%s", err, said)
	}
	return said, time.Since(asked)
}
