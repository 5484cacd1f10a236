package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

func TestBenchArguments(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"bench proxy extra", 2, "unknown command"},
		{"bench proxy --mode speed", 2, "use one of throughput, latency, setup, fair, unread, many, steady, link, soak"},
		{"bench proxy --proxy 0:2:/tmp/a", 2, "give two or more"},
		{"bench proxy --proxy 0:2", 2, "use CONTENT:DBID:SOCKET"},
		{"bench proxy --proxy 0:2:/tmp/a --proxy 1:2:/tmp/b", 2, "dbid 2 cannot be, or is given twice"},
		{"bench proxy --proxy 0:70000:/tmp/a", 2, "use CONTENT:DBID:SOCKET"},
		{"bench proxy --dialect auto", 2, "use magic36 or plain32"},
		{"bench proxy --pump fast", 2, "use splice, copy or none"},
		{"bench proxy --size 70000", 2, "use 20 to 65536"},
		{"bench proxy --rounds -1", 2, "cannot be negative"},
		{"bench proxy --check --mode many", 2, "leave out --mode"},
		{"bench proxy --plot /none/x.svg", 2, "/none"},
		{"bench proxy --proxy -1:1:/none/a --proxy 0:2:/none/b", 1, "connect to /none/a: no such file or directory"},
		{"bench interconnect extra", 2, "unknown command"},
		{"bench interconnect --types tcp,rdma", 2, `unknown interconnect type "rdma": use udpifc, tcp, proxy`},
		{"bench interconnect --segments 2,x", 2, `--segments: "x" is no number: give a list as 2,4,8,16`},
		{"bench interconnect --segments 32", 2, "32 segments: use 2 to 16"},
		{"bench interconnect --rtt 50h", 2, "a round trip of 50h0m0s: use 0 to 2s"},
		{"bench interconnect --rtt soon", 2, `--rtt: "soon" is no round trip: give a list as 1,10,50ms`},
		{"bench interconnect --loss 1,200%", 2, "a loss of 200 %: use 0 to less than 100"},
		{"bench interconnect --no-wan --no-loopback", 2, "nothing to measure"},
		{"bench interconnect --html /none/x.html", 2, "/none"},
		{"bench interconnect --report /none/x.md", 2, "/none"},
		{"bench interconnect --from /none/x.json", 1, "/none"},
		{"bench interconnect --from bench_test.go", 1, "bench_test.go: not a report of bench interconnect"},
		{"bench interconnect --help", 0, "an exit status of 3 when a bound is missed"},
		{"bench queries extra", 2, "unknown command"},
		{"bench queries --types tcp,rdma", 2, `unknown interconnect type "rdma": use udpifc, tcp, proxy`},
		{"bench queries --types tcp,tcp", 2, "given twice"},
		{"bench queries --query 1,x", 2, `--query: "x" is no number of a query: give a list as 1,9,17`},
		{"bench queries --query 0", 2, "there is no query 0: they go from 1 to 22"},
		{"bench queries --query 3,3", 2, "a query is given twice"},
		{"bench queries --scale 0", 2, "--scale 0"},
		{"bench queries --segments 1", 2, "1 segments: use 2 to 16"},
		{"bench queries --segments 0", 2, "--segments cannot be 0"},
		{"bench queries --rounds -1", 2, "-1 rounds: use 1 to 100"},
		{"bench queries --limit 1ms", 2, "a limit of 1ms: use 100ms or more"},
		{"bench queries --limit soon", 2, "invalid argument"},
		{"bench queries --report /none/x.md", 2, "/none"},
		{"bench queries --from /none/x.json", 1, "/none"},
		{"bench queries --from bench_test.go", 1, "bench_test.go: not a report of bench queries"},
		{"bench queries --help", 0, "an exit status of 3 when a bound is missed"},
		{"bench relay a", 2, "accepts 3 arg(s)"},
		{"bench relay copy a b", 1, "must be unix:PATH or tcp:HOST:PORT"},
		{"bench probe", 2, "use -D DATADIR"},
		{"bench frob", 2, "unknown command"},
		{"bench proxy --help", 0, "Plays the backends of interconnect proxies"},
		{"bench", 0, "Measure interconnect proxies"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"trunkline"}, strings.Fields(c.args)...), &out, &errs)
		if said := out.String() + errs.String(); code != c.code || !strings.Contains(said, c.want) {
			t.Errorf("%s: exit %d, want %d with %q:\n%s", c.args, code, c.code, c.want, said)
		}
	}
}

// TestEndedEarly: nobody is told that all is removed when it is not.
func TestEndedEarly(t *testing.T) {
	other := errors.New("no room")
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{other, 1, "no room"},
		{&benchreport.Interrupted{Cause: context.Canceled}, 130, "interrupted; the servers are removed"},
		{&benchreport.Interrupted{Cause: context.Canceled, Left: other}, 130, "interrupted; not all of the servers could be removed: no room"},
	} {
		err := endedEarly(c.err, "the servers")
		if code, say := exitCode(err); code != c.code || !say || err.Error() != c.want {
			t.Errorf("%v: status %d, %q; want %d, %q", c.err, code, err, c.code, c.want)
		}
	}
	if err := error(&benchreport.Interrupted{Cause: context.Canceled, Left: other}); !errors.Is(err, context.Canceled) || !errors.Is(err, other) {
		t.Errorf("%v hides what is in it", err)
	}
}
