package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		say  bool
	}{
		{nil, 0, false},
		{errors.New("x"), 1, true},
		{&usageError{nil, errors.New("x")}, 2, true},
		{exitWith(4, nil), 4, false},
		{exitWith(3, errors.New("x")), 3, true},
		{&usageError{nil, exitWith(1, errors.New("x"))}, 1, true},
	} {
		if code, say := exitCode(c.err); code != c.code || say != c.say {
			t.Errorf("%v: %d %v, want %d %v", c.err, code, say, c.code, c.say)
		}
	}
}

func TestRunWrongArguments(t *testing.T) {
	for _, args := range [][]string{{"frob"}, {"--frob"}, {"-z"}} {
		var out, err bytes.Buffer
		code := run(t.Context(), append([]string{"/usr/bin/trunkline"}, args...), &out, &err)
		if code != 2 || out.Len() > 0 || !strings.Contains(err.String(), "See 'trunkline --help'.") ||
			!strings.Contains(err.String(), strings.TrimLeft(args[0], "-")) {
			t.Errorf("%q: %d\n%s%s", args, code, &out, &err)
		}
	}
	var out, err bytes.Buffer
	if code := run(t.Context(), []string{"trunkline"}, &out, &err); code != 0 || !strings.Contains(out.String(), "Usage:") {
		t.Errorf("no arguments: %d\n%s%s", code, &out, &err)
	}
}
