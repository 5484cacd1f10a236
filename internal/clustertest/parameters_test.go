package clustertest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/internal/testkit"
)

// logReader reads the new lines of every running instance's instance.log.
type logReader struct {
	files map[uint16]*os.File
}

func readLogs(t *testing.T, c *testkit.Cluster) *logReader {
	t.Helper()
	r := &logReader{map[uint16]*os.File{}}
	for dbid := uint16(coordinatorDbid); dbid <= lastSegment; dbid++ {
		f, err := os.Open(filepath.Join(datadir.Dir(c.Instance(t, dbid).Datadir).LogDir(), "instance.log"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			t.Fatal(err)
		}
		r.files[dbid] = f
	}
	return r
}

// take returns the lines since the last call that have a text in them, by
// dbid. An instance has written what it has to before the statement ends.
func (r *logReader) take(t *testing.T, text string) map[uint16][]string {
	t.Helper()
	found := map[uint16][]string{}
	for dbid, f := range r.files {
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, text) {
				found[dbid] = append(found[dbid], line)
			}
		}
	}
	return found
}

// TestParametersReachExecutors: whatever sets or resets a parameter, the
// session's own end of motions and that of every executor obey it from the next
// statement on. gp_log_interconnect is one whose effect is seen at both.
func TestParametersReachExecutors(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, "create table p (id int) distributed by (id); insert into p select generate_series(1, 100)")
	logs := readLogs(t, c)
	query := func(what string, conn *pgx.Conn, written bool) {
		t.Helper()
		logs.take(t, "")
		if got := testkit.Query(t, conn, "select id from p"); len(got) != 100 {
			t.Fatalf("%s: %d rows", what, len(got))
		}
		lines := logs.take(t, "msg=\"interconnect: ")
		for dbid := range logs.files {
			if n := len(lines[dbid]); (n == 1) != written || n > 1 {
				t.Errorf("%s: dbid %d wrote %q", what, dbid, lines[dbid])
			}
		}
	}
	query("before anything", conn, false)
	for _, step := range []struct {
		sql     string
		written bool
	}{
		{"set gp_log_interconnect = verbose", true},
		{"reset gp_log_interconnect", false},
		{"begin; set local gp_log_interconnect = 'verbose'", true},
		{"savepoint s; set gp_log_interconnect to off", false},
		{"rollback to s", true},
		{"commit", false},
		{"begin; set gp_log_interconnect = verbose", true},
		{"rollback", false},
		{"begin; set gp_log_interconnect = verbose; commit", true},
		{"set gp_log_interconnect to default", false},
		{"select set_config('gp_log_interconnect', 'Verbose', false)", true},
		{"reset all", false},
		{"set session gp_log_interconnect = verbose", true},
		{"discard all", false},
	} {
		testkit.Exec(t, conn, step.sql)
		query(step.sql, conn, step.written)
	}

	// PGOPTIONS, and what belongs to a database, hold from the start and are
	// what RESET goes back to.
	loud := c.Connect(t, db, "gp_log_interconnect=verbose")
	query("PGOPTIONS", loud, true)
	testkit.Exec(t, loud, "set gp_log_interconnect = off")
	query("SET over PGOPTIONS", loud, false)
	testkit.Exec(t, loud, "reset gp_log_interconnect")
	query("RESET to PGOPTIONS", loud, true)
	testkit.Exec(t, conn, "alter database "+db+" set gp_log_interconnect = verbose")
	query("ALTER DATABASE", c.Connect(t, db), true)
	testkit.Exec(t, conn, "alter database "+db+" reset gp_log_interconnect")

	// A file that is reloaded reaches sessions that are open, unless they have
	// set their own; what can only be set at connection start they keep.
	own := c.Connect(t, db)
	testkit.Exec(t, own, "set gp_log_interconnect = terse")
	query("SET", own, false)
	t.Cleanup(func() {
		c.MustShell(t, "gpconfig --skipvalidation -r gp_log_interconnect && gpconfig -r gp_max_packet_size && gpstop -u")
	})
	c.MustShell(t, "gpconfig --skipvalidation -c gp_log_interconnect -v verbose && gpconfig -c gp_max_packet_size -v 4096 && gpstop -u")
	query("reload", conn, true)
	query("reload after SET", own, false)
	query("reload, new session", c.Connect(t, db), true)
	testkit.Exec(t, own, "reset all")
	query("reload and RESET ALL", own, true)
	for _, s := range []struct {
		conn *pgx.Conn
		want string
	}{{conn, "8192"}, {own, "8192"}, {c.Connect(t, db), "4096"}} {
		if got := testkit.Value(t, s.conn, "show gp_max_packet_size"); got != s.want {
			t.Errorf("gp_max_packet_size is %s after the reload, expected %s", got, s.want)
		}
	}
	c.MustShell(t, "gpconfig --skipvalidation -r gp_log_interconnect && gpconfig -r gp_max_packet_size && gpstop -u")
	query("second reload", conn, false)
}

// TestParametersOfPatience: a segment whose packets never arrive gives up after
// as many tries and as long as the session says, after a warning, and the client
// is told what the segment has found out, not what came of it elsewhere.
func TestParametersOfPatience(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=gpadmin dbname=%s", c.Port, db))
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Severity == "WARNING" {
			warnings = append(warnings, n.Code+" "+n.Message+"\n"+n.Detail)
		}
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer testkit.Close(conn)
	testkit.Exec(t, conn, "create table p (id int) distributed by (id); insert into p select generate_series(1, 100)")
	warnings = nil
	testkit.Exec(t, conn, `set gp_udpic_dropxmit_percent = 100; set gp_udpic_dropseg = 1;
		set gp_interconnect_min_retries_before_timeout = 5; set gp_interconnect_transmit_timeout = 1`)
	start := time.Now()
	_, err = testkit.TryQuery(conn, "select id from p")
	took := time.Since(start)
	if err == nil {
		t.Fatal("the rows have arrived")
	}
	text := testkit.ErrorText(err)
	want := regexp.MustCompile(`^58M01\ninterconnect encountered a network error, please check your network \(seg1 slice1 .*\)\nFailed to send packet \(seq 1\) to .* after \d+ retries in 1 seconds\.`)
	if !want.MatchString(text) {
		t.Errorf("the error is %s", text)
	}
	if took < time.Second || took > 10*time.Second {
		t.Errorf("it came after %v", took)
	}
	want = regexp.MustCompile(`^01000 interconnect may encountered a network error, please check your network\nFailed to send packet \(seq 1\) to .* after 5 retries\.$`)
	if len(warnings) != 1 || !want.MatchString(warnings[0]) {
		t.Errorf("warnings: %q", warnings)
	}
	testkit.Exec(t, conn, "reset all")
	if n := testkit.Query(t, conn, "select id from p"); len(n) != 100 {
		t.Errorf("afterwards: %d rows", len(n))
	}
}

var statistics = regexp.MustCompile(`data packets (\d+), retransmits (\d+), .* ignored (\d+); .* content=(-?\d+)`)

// TestParametersOfPackets: what a session sets shows in the packets its
// executors send, as gp_interconnect_log_stats counts them.
func TestParametersOfPackets(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, `create table p (id int, pad text) distributed by (id);
		insert into p select i, repeat('x', 1000) from generate_series(1, 3000) i`)
	logs := readLogs(t, c)
	type counts struct{ data, again, ignored int }
	run := func(conn *pgx.Conn) map[int]counts { // by content id
		t.Helper()
		logs.take(t, "")
		if n := testkit.Query(t, conn, "select * from p"); len(n) != 3000 {
			t.Fatalf("%d rows", len(n))
		}
		all := map[int]counts{}
		for _, lines := range logs.take(t, "interconnect statistics: ") {
			for _, line := range lines {
				m := statistics.FindStringSubmatch(line)
				if m == nil {
					t.Fatalf("statistics that say nothing: %s", line)
				}
				n := func(i int) int { v, _ := strconv.Atoi(m[i]); return v }
				all[n(4)] = counts{n(2 - 1), n(2), n(3)}
			}
		}
		return all
	}
	if all := run(conn); len(all) != 0 {
		t.Errorf("statistics though nobody wants them: %v", all)
	}
	testkit.Exec(t, conn, "set gp_interconnect_log_stats = on")
	all := run(conn)
	for content := range c.Segments {
		if n := all[content]; n.data < 120 || n.data > 600 { // some 1000 rows, at most eight in a packet
			t.Errorf("content %d sent %+v", content, n)
		}
	}
	if n, ok := all[-1]; !ok || n.data != 0 {
		t.Errorf("the session itself: %+v, %v", n, ok)
	}

	small := c.Connect(t, db, "gp_interconnect_log_stats=on", "gp_max_packet_size=1400")
	all = run(small)
	for content := range c.Segments {
		if n := all[content]; n.data < 900 || n.data > 1100 { // one
			t.Errorf("with packets of 1400 bytes content %d sent %+v", content, n)
		}
	}

	// Packets that are lost on purpose are sent again, by the segment that
	// loses them.
	testkit.Exec(t, conn, "set gp_udpic_dropxmit_percent = 20; set gp_udpic_dropseg = 1; set gp_interconnect_min_rto = 5; set gp_interconnect_default_rtt = 5")
	all = run(conn)
	if all[1].again < 10 || all[0].again >= all[1].again || all[2].again >= all[1].again {
		t.Errorf("content 1 loses a fifth: %v", all)
	}
	testkit.Exec(t, conn, "set gp_udpic_dropxmit_percent = 0; set gp_udpic_fault_inject_percent = 20; set gp_udpic_fault_inject_bitmap = 2")
	if all = run(conn); all[-1].ignored < 10 || all[1].again < 10 {
		t.Errorf("content 1 cuts a fifth: %v", all)
	}
	testkit.Exec(t, conn, "reset all; set gp_interconnect_log_stats = on")
	if all = run(conn); all[1].again > 9 || all[-1].ignored > 0 {
		t.Errorf("nothing goes wrong on purpose: %v", all)
	}
}

// TestAddressType: executors listen on every network interface or on their
// instance's address, in both types that have sockets of their own.
func TestAddressType(t *testing.T) {
	c := shared(t)
	ss := map[string]string{tcp: "-Hltnp", udpifc: "-Hluanp"}
	listening := func(mode string) (any, address int) {
		t.Helper()
		pids := map[string]bool{}
		for dbid := uint16(coordinatorDbid); dbid <= lastSegment; dbid++ {
			pids[fmt.Sprintf("pid=%d,", c.Pid(t, dbid, testkit.InstanceProcess))] = true
		}
		out, err := exec.Command("ss", ss[mode]).CombinedOutput()
		if err != nil {
			t.Fatalf("ss: %v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			pid := regexp.MustCompile(`pid=\d+,`).FindString(line)
			if !pids[pid] {
				continue
			}
			switch f := strings.Fields(line); {
			case strings.HasPrefix(f[3], "*:"), strings.HasPrefix(f[3], "0.0.0.0:"), strings.HasPrefix(f[3], "[::]:"):
				any++
			case strings.HasPrefix(f[3], "127.0.0.1:"):
				address++
			}
		}
		return any, address
	}
	for _, mode := range []string{tcp, udpifc} {
		anyBefore, addressBefore := listening(mode)
		for _, typ := range []string{"unicast", "wildcard"} {
			conn := c.Connect(t, "template1", mode, "gp_interconnect_address_type="+typ)
			if got := testkit.Value(t, conn, "select count(*) from gp_dist_random('gp_id')"); got != strconv.Itoa(c.Segments) {
				t.Fatalf("%s, %s: %s segments answer", mode, typ, got)
			}
			any, address := listening(mode)
			any, address = any-anyBefore, address-addressBefore
			if typ == "unicast" {
				any, address = address, any
			}
			if least := c.Segments + 1; any < least || address != 0 {
				t.Errorf("%s, %s: %d sockets as they should be, at least %d expected, and %d others", mode, typ, any, least, address)
			}
			testkit.Close(conn)
			testkit.Eventually(t, limit, func() error { // executors close when the session has gone
				if a, b := listening(mode); a != anyBefore || b != addressBefore {
					return fmt.Errorf("%s, %s: %d and %d sockets, before it %d and %d", mode, typ, a, b, anyBefore, addressBefore)
				}
				return nil
			})
		}
	}
}

// TestParameterUnits: SHOW says a number with its unit, as PostgreSQL does, and
// refuses in its words.
func TestParameterUnits(t *testing.T) {
	c := beside(t)
	conn := c.Connect(t, "postgres", "gp_udp_bufsize_k=4MB", "gp_interconnect_transmit_timeout=90min")
	for _, c := range []struct{ sql, want string }{
		{"show gp_udp_bufsize_k", "4MB"},
		{"show gp_interconnect_transmit_timeout", "90min"},
		{"show gp_interconnect_setup_timeout", "2h"},
		{"show gp_interconnect_default_rtt", "20ms"},
		{"set gp_interconnect_min_rto = '1s'; show gp_interconnect_min_rto", "1s"},
		{"set gp_interconnect_timer_period to 100; show gp_interconnect_timer_period", "100ms"},
		{"set gp_interconnect_full_crc = yes; show gp_interconnect_full_crc", "on"},
		{"set gp_interconnect_fc_method = 'Capacity'; show gp_interconnect_fc_method", "capacity"},
		{"set gp_interconnect_setup_timeout = 0; show gp_interconnect_setup_timeout", "0"},
		{"select setting || unit from pg_settings where name = 'gp_udp_bufsize_k'", "4096kB"},
		{"set gp_interconnect_cache_future_packets to 'off'; select count(*) from gp_dist_random('gp_id')", "3"},
		{"set gp_enable_interconnect_aggressive_retry to 'off'; select count(*) from gp_dist_random('gp_id')", "3"},
	} {
		if got := testkit.Query(t, conn, c.sql); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: %v, expected %s", c.sql, got, c.want)
		}
	}
	for _, name := range []string{"gp_interconnect_type", "gp_interconnect_address_type", "gp_max_packet_size", "gp_udp_bufsize_k"} {
		for _, sql := range []string{"set " + name + " to default", "select set_config('" + name + "', '1', false)"} {
			err := testkit.TryExec(conn, sql)
			if want := fmt.Sprintf("parameter %q cannot be set after connection start", name); testkit.SQLState(err) != "55P02" || !strings.Contains(testkit.ErrorText(err), want) {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	if err := testkit.TryExec(conn, "set gp_interconnect_proxy_addresses = ''"); testkit.SQLState(err) != "55P02" {
		t.Errorf("setting the addresses: %v", err)
	}
	if _, err := c.TryConnect("postgres", "gp_max_packet_size=100"); testkit.SQLState(err) != "22023" {
		t.Errorf("packets of 100 bytes: %v", err)
	}
}
