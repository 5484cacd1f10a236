package clustertest

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/internal/testkit"
	"github.com/trunkline-db/trunkline/internal/testkit/deaf"
	"github.com/trunkline-db/trunkline/topology"
)

// limit is how soon a query that cannot work has to say so.
const limit = 2 * time.Second

// TestProxyModeFailures sets up proxy mode in ways that cannot work. A query
// then fails within the limit, says which instance or address is to blame, and
// everything works again as soon as the cause is gone.
func TestProxyModeFailures(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, "create table s (id int) distributed by (id); insert into s select generate_series(1, 300)")
	testkit.Close(conn)
	good := c.Addresses(t)
	const victim = 3 // dbid of segment 1

	// A port that refuses, one that takes the connection and closes it, one that
	// takes it and says nothing, and one that does not answer at all.
	refusing, err := freeport.One()
	if err != nil {
		t.Fatal(err)
	}
	closer := listener(t, func(c net.Conn) { c.Close() })
	silent := listener(t, func(net.Conn) {})
	silentPort := deaf.Port(t)
	elsewhere := func(dbid uint16, host string, port int) topology.AddressList {
		list := testkit.Moved(good, dbid, port)
		for i := range list {
			if list[i].Dbid == dbid {
				list[i].Host = host
			}
		}
		return list
	}
	victimPort := 0
	for _, e := range good {
		if e.Dbid == victim {
			victimPort = e.Port
		}
	}

	own := func(list fmt.Stringer) string {
		return fmt.Sprintf(`gpconfig --skipvalidation -c gp_interconnect_proxy_addresses -v "'%s'" -m "'%s'" && gpstop -u`, list, good)
	}
	for _, tc := range []struct {
		name  string
		setUp string
		names string // what the error must match
	}{
		{"no addresses", "gpconfig -r gp_interconnect_proxy_addresses && gpstop -u", `gp_interconnect_proxy_addresses`},
		{"instance missing",
			fmt.Sprintf(`gpconfig --skipvalidation -c gp_interconnect_proxy_addresses -v "'%s'" && gpstop -u`, testkit.Without(good, victim)),
			`dbid ?3\b`},
		{"coordinator missing",
			fmt.Sprintf(`gpconfig --skipvalidation -c gp_interconnect_proxy_addresses -v "'%s'" && gpstop -u`, testkit.Without(good, coordinatorDbid)),
			`dbid ?1\b`},
		{"own port taken",
			fmt.Sprintf(`gpconfig --skipvalidation -c gp_interconnect_proxy_addresses -v "'%s'" && gpstop -u`, testkit.Moved(good, victim, silent)),
			fmt.Sprintf(`(?s)(dbid ?3\b.*127\.0\.0\.1:%d|127\.0\.0\.1:%[1]d.*dbid ?3\b)`, silent)},
		// The segments look for the coordinator's proxy where it is not.
		{"peer refuses", own(testkit.Moved(good, coordinatorDbid, refusing)),
			fmt.Sprintf(`dbid ?1\b.*127\.0\.0\.1:%d\b.*connection refused`, refusing)},
		{"peer closes", own(testkit.Moved(good, coordinatorDbid, closer)),
			fmt.Sprintf(`dbid ?1\b.*127\.0\.0\.1:%d\b.*(closed|connection reset)`, closer)},
		{"peer does not answer", own(testkit.Moved(good, coordinatorDbid, silentPort)),
			fmt.Sprintf(`dbid ?1\b.*127\.0\.0\.1:%d\b.*(still connecting to 127\.0\.0\.1:%[1]d|no answer to our attempt to connect)`, silentPort)},
		{"peer takes the connection and is silent", own(testkit.Moved(good, coordinatorDbid, silent)),
			fmt.Sprintf(`dbid ?1\b.*127\.0\.0\.1:%d\b.*(still waiting for the answer to our hello|did not answer our hello)`, silent)},
		{"name does not resolve", own(elsewhere(coordinatorDbid, "no-such-host.invalid", 4000)),
			`dbid ?1\b.*(the name no-such-host\.invalid cannot be resolved|still resolving the name no-such-host\.invalid)`},
		{"another instance's proxy at the address", own(elsewhere(coordinatorDbid, "localhost", victimPort)),
			`dbid ?1\b.*the proxy there is that of seg1 \(dbid 3\)`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer c.ConnectProxies(t)
			c.MustShell(t, tc.setUp)
			// The reload is not instant, so queries may pass for a moment.
			var err error
			var took time.Duration
			testkit.Eventually(t, 10*time.Second, func() error {
				conn, cerr := c.TryConnect(db, proxy)
				if cerr != nil {
					t.Fatalf("the session itself was refused: %v", cerr)
				}
				defer testkit.Close(conn)
				start := time.Now()
				_, err = testkit.TryQuery(conn, "select count(*) from s")
				took = time.Since(start)
				if err == nil {
					return fmt.Errorf("the query passes")
				}
				return nil
			})
			text := testkit.ErrorText(err)
			t.Logf("after %v: %s", took.Round(time.Millisecond), strings.ReplaceAll(text, "\n", "\n\t"))
			if took > limit {
				t.Errorf("it took %v, the limit is %v", took, limit)
			}
			if state := testkit.SQLState(err); state != "58M01" {
				t.Errorf("SQLSTATE %q, expected 58M01", state)
			}
			if !regexp.MustCompile(tc.names).MatchString(text) {
				t.Errorf("the error does not match %s", tc.names)
			}
			// A session in tcp mode is not affected.
			conn := c.Connect(t, db, tcp)
			if n := testkit.Value(t, conn, "select count(*) from s"); n != "300" {
				t.Errorf("tcp mode counts %s", n)
			}
		})
		// What was wrong is right again, without any restart.
		conn := c.Connect(t, db, proxy)
		if n := testkit.Value(t, conn, "select count(*) from s"); n != "300" {
			t.Errorf("after %s: %s rows", tc.name, n)
		}
		testkit.Close(conn)
	}
}

// TestBadAddresses gives gpconfig lists that are wrong; it says what is wrong
// with them and writes nothing.
func TestBadAddresses(t *testing.T) {
	c := shared(t)
	good := c.Addresses(t)
	before := c.MustShell(t, "gpconfig -s gp_interconnect_proxy_addresses --file")
	for name, tc := range map[string]struct{ list, want string }{
		"port too big":  {strings.Replace(good.String(), fmt.Sprint(good[1].Port), "70000", 1), "70000"},
		"no port":       {"1:-1:localhost", "1:-1:localhost"},
		"missing":       {testkit.Without(good, 3).String(), "dbid 3"},
		"unknown dbid":  {good.String() + ",99:0:127.0.0.1:9999", "99"},
		"repeated dbid": {good.String() + "," + good[0].String(), "dbid 1"},
		"empty host":    {"1:-1::5000", "host"},
	} {
		out, err := c.Shell("gpconfig -c gp_interconnect_proxy_addresses -v '" + tc.list + "'")
		if err == nil || !strings.Contains(out, tc.want) {
			t.Errorf("%s: %v, expected failure and %q in:\n%s", name, err, tc.want, out)
		}
	}
	if after := c.MustShell(t, "gpconfig -s gp_interconnect_proxy_addresses --file"); after != before {
		t.Errorf("something was written:\n%s\nwas:\n%s", after, before)
	}
}

// listener accepts connections and hands them to f until the test ends; then
// they are closed.
func listener(t *testing.T, f func(net.Conn)) (port int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			f(conn)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

// TestProxyHangs: a segment's proxy that hangs, its sockets open, is told from
// one that works, and a query that needs it ends with its name.
func TestProxyHangs(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	conn := c.Connect(t, db, proxy)
	testkit.Exec(t, conn, "create table s (id int) distributed by (id); insert into s select generate_series(1, 300)")
	c.ConnectProxies(t)
	const victim = 3 // dbid of segment 1
	c.MustShell(t, "gpconfig -c trunkline.proxy_peer_timeout -v 1s && gpstop -u")
	defer c.MustShell(t, "gpconfig -r trunkline.proxy_peer_timeout && gpstop -u")
	if n := testkit.Value(t, conn, "select count(*) from s"); n != "300" {
		t.Fatalf("%s rows", n)
	}
	thaw := testkit.Freeze(t, c.Pid(t, victim, testkit.Proxy))
	start := time.Now()
	_, err := testkit.TryQuery(conn, "select count(*) from s")
	took := time.Since(start)
	t.Logf("after %v: %s", took.Round(time.Millisecond), testkit.ErrorText(err))
	if err == nil || testkit.SQLState(err) != "58M01" || !regexp.MustCompile(`dbid ?3\b`).MatchString(testkit.ErrorText(err)) {
		t.Errorf("expected 58M01 and dbid 3 in the error")
	}
	if took > limit+3*time.Second {
		t.Errorf("it took %v", took)
	}
	thaw()
	c.WaitProxies(t)
	if n := testkit.Value(t, conn, "select count(*) from s"); n != "300" {
		t.Errorf("afterwards %s rows", n)
	}
}
