package clustertest

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

func sorted(lines []string) []string {
	lines = slices.Clone(lines)
	slices.Sort(lines)
	return lines
}

// TestDistribution looks where rows lie.
func TestDistribution(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, `
		create table h (id int, v text) distributed by (id);
		create table r (id int) distributed randomly;
		create table rep (id int) distributed replicated;
		insert into h select i, 'v' || i from generate_series(1, 1000) i;
		insert into r select generate_series(1, 1000);
		insert into rep select generate_series(1, 10)`)
	for sql, want := range map[string]string{
		"select count(*), count(distinct gp_segment_id) from h":                                                      "1000|3",
		"select count(*), count(distinct gp_segment_id) from r":                                                      "1000|3",
		"select count(*) from rep":                                                                                   "10",
		"select count(*) from gp_dist_random('rep')":                                                                 "30",
		"select count(*) from gp_segment_configuration":                                                              "5",
		"select count(*) from gp_dist_random('gp_id')":                                                               "3",
		"select string_agg(policytype::text || numsegments, ',' order by localoid) from gp_distribution_policy":      "p3,p3,r3",
		"select string_agg(content::text, ',' order by content) from gp_segment_configuration where role = 'p'":      "-1,0,1,2",
		"select status::text || mode::text from gp_segment_configuration where role = 'm' and content = -1":          "us",
		"select setting from pg_settings where name = 'gp_interconnect_type'":                                        "udpifc",
		"select current_setting('gp_interconnect_queue_depth')":                                                      "4",
		"select count(*) from pg_settings where name = 'gp_interconnect_proxy_addresses'":                            "0",
		"select count(*) from pg_stat_replication where application_name <> '' and sync_state in ('sync', 'quorum')": "1",
	} {
		if got := strings.Join(testkit.Query(t, conn, sql), " "); got != want {
			t.Errorf("%s: %s, expected %s", sql, got, want)
		}
	}
	// Each segment's own PostgreSQL holds just the rows it should.
	n := 0
	for dbid := uint16(firstSegment); dbid <= lastSegment; dbid++ {
		seg := c.Utility(t, dbid, db)
		var k int
		fmt.Sscan(testkit.Value(t, seg, "select count(*) from h"), &k)
		n += k
		want := testkit.Value(t, conn, fmt.Sprintf("select count(*) from h where gp_segment_id = %d", dbid-firstSegment))
		if fmt.Sprint(k) != want {
			t.Errorf("segment %d holds %d rows, gp_segment_id says %s", dbid-firstSegment, k, want)
		}
		if got := testkit.Value(t, seg, "select count(*) from rep"); got != "10" {
			t.Errorf("segment %d holds %s rows of the replicated table", dbid-firstSegment, got)
		}
	}
	if n != 1000 {
		t.Errorf("the segments hold %d rows together", n)
	}
	if _, err := c.Shell(fmt.Sprintf("psql -p %d -d %s -c 'select 1'", c.Instance(t, firstSegment).Port, db)); err == nil {
		t.Error("a segment takes sessions that are not in utility mode")
	}
}

// TestParameters: contexts, ranges and their errors.
func TestParameters(t *testing.T) {
	c := beside(t)
	conn := c.Connect(t, "postgres", "gp_interconnect_queue_depth=8")
	for _, tc := range []struct{ sql, state, want string }{
		{"show gp_interconnect_queue_depth", "", "8"},
		{"set gp_interconnect_queue_depth = 16; show gp_interconnect_queue_depth", "", "16"},
		{"reset gp_interconnect_queue_depth; show gp_interconnect_queue_depth", "", "8"},
		{"set gp_interconnect_queue_depth = 5000", "22023", "5000 is outside the valid range for parameter \"gp_interconnect_queue_depth\" (1 .. 4096)"},
		{"set gp_interconnect_type = tcp", "55P02", "parameter \"gp_interconnect_type\" cannot be set after connection start"},
		{"set gp_interconnect_fc_method = 'x'", "22023", "invalid value for parameter \"gp_interconnect_fc_method\": \"x\""},
		{"show gp_interconnect_setup_timeout", "", "2h"},
		{"begin; set local gp_interconnect_queue_depth = 9; rollback; show gp_interconnect_queue_depth", "", "8"},
		{"select set_config('gp_interconnect_snd_queue_depth', '7', false)", "", "7"},
		{"show gp_interconnect_snd_queue_depth", "", "7"},
		{"show no_such_parameter", "42704", "unrecognized configuration parameter \"no_such_parameter\""},
	} {
		rows, err := testkit.TryQuery(conn, tc.sql)
		switch {
		case testkit.SQLState(err) != tc.state:
			t.Errorf("%s: %v, expected SQLSTATE %q", tc.sql, err, tc.state)
		case err != nil && !strings.Contains(err.Error(), tc.want):
			t.Errorf("%s: %v, expected %s", tc.sql, err, tc.want)
		case err == nil && (len(rows) != 1 || rows[0] != tc.want):
			t.Errorf("%s: %v, expected %s", tc.sql, rows, tc.want)
		}
	}
	if _, err := c.TryConnect("postgres", "gp_interconnect_type=carrier"); testkit.SQLState(err) != "22023" {
		t.Errorf("an unknown type in PGOPTIONS: %v", err)
	}
}

// TestTransactions: what is rolled back is gone on every segment, what is
// committed is there, and readers see a commit whole or not at all.
func TestTransactions(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	conn, other := c.Connect(t, db), c.Connect(t, db)
	testkit.Exec(t, conn, "create table t (id int, v int) distributed by (id)")
	count := func(want string) {
		t.Helper()
		if got := testkit.Value(t, other, "select count(*) from t"); got != want {
			t.Errorf("another session counts %s rows, expected %s", got, want)
		}
	}
	testkit.Exec(t, conn, "begin; insert into t select i, 0 from generate_series(1, 100) i")
	count("0")
	testkit.Exec(t, conn, "savepoint a; insert into t select i, 1 from generate_series(101, 200) i; rollback to a; insert into t values (1000, 2)")
	testkit.Exec(t, conn, "commit")
	count("101")
	testkit.Exec(t, conn, "begin; delete from t where id <= 50; update t set v = 7")
	count("101")
	testkit.Exec(t, conn, "rollback")
	count("101")

	// So with cursors open, whether they have been read or not.
	for _, q := range []string{"select * from t", "select a.id from t a join t b on a.v = b.id"} {
		for _, fetch := range []string{"", "; fetch 1 from c", "; fetch all from c", "; fetch 1 from c; savepoint a; rollback to a"} {
			testkit.Exec(t, conn, "begin; insert into t select i, 5 from generate_series(6000, 6099) i; declare c cursor for "+q+fetch)
			start := time.Now()
			testkit.Exec(t, conn, "rollback")
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("rollback with a cursor for %s%s open took %v", q, fetch, took)
			}
			if got := testkit.Value(t, conn, "select count(*) from t"); got != "101" {
				t.Errorf("after the rollback with a cursor for %s%s open: %s rows", q, fetch, got)
			}
			count("101")
		}
	}
	// COMMIT of what has failed rolls back as well.
	if err := testkit.TryExec(conn, "begin; insert into t values (6000, 5); declare c cursor for select * from t; select 1/0"); testkit.SQLState(err) != "22012" {
		t.Errorf("division by zero: %v", err)
	}
	testkit.Exec(t, conn, "commit")
	if got := testkit.Value(t, conn, "select count(*) from t"); got != "101" {
		t.Errorf("after COMMIT of a failed transaction with a cursor: %s rows", got)
	}

	// An error in a transaction block ends it, with the segment's error.
	err := testkit.TryExec(conn, "begin; insert into t values (5000, 1); select 1 / (v - v) from t")
	if testkit.SQLState(err) != "22012" || !regexp.MustCompile(`\(seg\d .*pid=\d+\)`).MatchString(err.Error()) {
		t.Errorf("division by zero on a segment: %v", err)
	}
	if err := testkit.TryExec(conn, "select 1"); testkit.SQLState(err) != "25P02" {
		t.Errorf("in a failed transaction: %v", err)
	}
	testkit.Exec(t, conn, "rollback")
	count("101")

	// Commits are atomic to readers: each adds one row on every segment.
	testkit.Exec(t, conn, `create table pairs (seg int, n int) distributed by (seg)`)
	ids := onEachSegment(t, conn, c.Segments)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			var values []string
			for _, id := range ids {
				values = append(values, fmt.Sprintf("(%d, %d)", id, n))
			}
			if err := testkit.TryExec(conn, "insert into pairs values "+strings.Join(values, ", ")); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 100 {
		if got := testkit.Query(t, other, fmt.Sprintf("select n, count(*) from pairs group by n having count(*) <> %d", len(ids))); len(got) > 0 {
			t.Errorf("half a commit was seen: %v", got)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCancel: a cancel request ends the query on the segments too.
func TestCancel(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	modes(t, func(t *testing.T, mode string) {
		conn := c.Connect(t, db, mode)
		testkit.Exec(t, conn, "drop table if exists t; create table t (id int) distributed by (id); insert into t select generate_series(1, 30)")
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		timer := time.AfterFunc(300*time.Millisecond, func() { _ = conn.PgConn().CancelRequest(ctx) })
		defer timer.Stop()
		start := time.Now()
		_, err := testkit.TryQuery(conn, "select id, pg_sleep(20) from t")
		if testkit.SQLState(err) != "57014" {
			t.Errorf("%v, expected SQLSTATE 57014", err)
		}
		if took := time.Since(start); took > 300*time.Millisecond+limit {
			t.Errorf("the query ended after %v", took)
		}
		for dbid := uint16(firstSegment); dbid <= lastSegment; dbid++ {
			seg := c.Utility(t, dbid, db)
			testkit.Eventually(t, limit, func() error {
				if n := testkit.Value(t, seg, "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep(20)%' and pid <> pg_backend_pid()"); n != "0" {
					return fmt.Errorf("dbid %d still runs %s of its backends", dbid, n)
				}
				return nil
			})
			testkit.Close(seg)
		}
		if got := testkit.Value(t, conn, "select count(*) from t"); got != "30" {
			t.Errorf("after the cancel: %s", got)
		}
	})
}
