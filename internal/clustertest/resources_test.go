package clustertest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/internal/testkit"
	icproxy "github.com/trunkline-db/trunkline/proxy"
)

// usage is what the cluster's processes hold.
type usage map[string]int

// resources counts it. What a proxy keeps for backends that have not come, for
// minutes when they never come, counts only with early.
func resources(t *testing.T, c *testkit.Cluster, early bool) usage {
	t.Helper()
	u := usage{}
	for _, i := range c.Instances(t) {
		name := func(what string) string { return fmt.Sprintf("%s of dbid %d", what, i.Dbid) }
		st, err := instance.ReadStatus(context.Background(), datadir.Dir(i.Datadir))
		if err != nil {
			t.Fatal(err)
		}
		u[name("descriptors of the instance")] = descriptors(st.Pid)
		u[name("sessions")] = st.Sessions
		u[name("backends of the server")] = len(backends(st.Postgres.Pid))
		if st.Standby {
			continue // no proxy
		}
		ps, err := icproxy.ReadStatus(context.Background(), datadir.Dir(i.Datadir).ProxySocket())
		if err != nil {
			t.Fatal(err)
		}
		u[name("descriptors of the proxy")] = descriptors(st.Proxy.Pid)
		u[name("backends of the proxy")] = ps.Backends
		if early {
			u[name("early connections of the proxy")] = ps.Early
			u[name("granted memory of the proxy")] = int(ps.Memory.Granted)
			for _, p := range ps.Peers {
				u[name("logical connections of the proxy")] += p.Connections
			}
		}
	}
	return u
}

// descriptors counts those of a process.
func descriptors(pid int) int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(list)
}

// less says what there is more of now.
func (u usage) less(now usage) error {
	var more []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if now[name] > u[name] {
			more = append(more, fmt.Sprintf("%s: %d, before %d", name, now[name], u[name]))
		}
	}
	if more != nil {
		return fmt.Errorf("left behind: %s", strings.Join(more, "; "))
	}
	return nil
}

// leftovers says what closed sessions have left in a database, on any server, and
// in the files of any instance.
func leftovers(t *testing.T, c *testkit.Cluster, db string) error {
	t.Helper()
	var left []string
	for _, i := range c.Instances(t) {
		if i.Dbid == standbyDbid {
			continue // takes no sessions
		}
		conn := c.Utility(t, i.Dbid, db)
		for what, sql := range leftoverQueries {
			for _, row := range testkit.Query(t, conn, sql) {
				left = append(left, fmt.Sprintf("%s on dbid %d: %s", what, i.Dbid, row))
			}
		}
		testkit.Close(conn)
		for what, pattern := range map[string]string{
			"temporary file of the server": filepath.Join(i.Datadir, "base", "pgsql_tmp", "*"),
			"pass of a view's owner":       filepath.Join(datadir.Dir(i.Datadir).ReadsDir(), "*"),
		} {
			files, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				left = append(left, fmt.Sprintf("%s: %s", what, file))
			}
		}
		for _, file := range deleted(c.Pid(t, i.Dbid, testkit.InstanceProcess)) {
			left = append(left, fmt.Sprintf("rows that dbid %d keeps in a file: %s", i.Dbid, file))
		}
	}
	if left != nil {
		slices.Sort(left)
		return fmt.Errorf("left behind: %s", strings.Join(left, "; "))
	}
	return nil
}

// leftoverQueries find, in a database, what no session has that is still there.
var leftoverQueries = map[string]string{
	"backend": `select pid || ' ' || application_name || ' ' || state || ' ' || query from pg_stat_activity
		where datname = current_database() and pid <> pg_backend_pid()`,
	"temporary relation": "select oid::regclass from pg_class where relpersistence = 't'",
	"in a temporary schema": `select n.nspname || ' ' || c.what from pg_namespace n
		join (select relnamespace as s, 'relation ' || relname as what from pg_class
			union all select pronamespace, 'function ' || proname from pg_proc
			union all select typnamespace, 'type ' || typname from pg_type) c on c.s = n.oid
		where n.nspname ~ '^pg_(toast_)?temp_'`,
	"prepared transaction": "select gid from pg_prepared_xacts where database = current_database()",
	"held lock":            "select locktype || ' ' || mode from pg_locks where pid is null or locktype = 'advisory'",
}

// deleted are the files that a process has open and that are in no directory, as
// those are that rows wait in.
func deleted(pid int) (files []string) {
	list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range list {
		if file, err := os.Readlink(fd); err == nil && strings.HasSuffix(file, " (deleted)") && strings.HasPrefix(file, "/tmp") {
			files = append(files, file)
		}
	}
	return files
}

// backendOf opens a session on an instance's PostgreSQL itself, wherever its network
// is.
func backendOf(t *testing.T, c *testkit.Cluster, dbid uint16, db string) *pgx.Conn {
	t.Helper()
	i := c.Instance(t, dbid)
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s dbname=%s", datadir.Dir(i.Datadir).SocketDir(), i.Port, instance.Superuser, db))
	if err != nil {
		t.Fatalf("PostgreSQL of dbid %d: %v", dbid, err)
	}
	t.Cleanup(func() { testkit.Close(conn) })
	return conn
}

// lookLarge has the planner take the tables of the schema public to be large, so that
// slices run beside each other, until they are analyzed. It returns what it has done
// on seg0, which the planner asks.
func lookLarge(t *testing.T, c *testkit.Cluster, db string) string {
	t.Helper()
	const sql = "update pg_class set reltuples = greatest(reltuples, 50) * 1000, relpages = greatest(relpages, 1) where relnamespace = 'public'::regnamespace and relkind = 'r'"
	seg0 := backendOf(t, c, 2, db)
	defer testkit.Close(seg0)
	testkit.Exec(t, seg0, sql)
	return sql
}
