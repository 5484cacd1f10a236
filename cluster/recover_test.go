package cluster

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/instance"
)

func testProxyDies(t *testing.T, c *Cluster) {
	old := c.status(t, 2).Live.Proxy.Pid
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "proxy comes back", func() error {
		if p := c.status(t, 2).Live.Proxy; p.Pid == old || p.State != instance.Ready || p.Restarts == 0 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

func testServerDies(t *testing.T, c *Cluster) {
	seg := c.Instances()[1]
	before := c.status(t, 2)
	// A busy backend does not notice by itself that its postmaster died.
	busy := make(chan error, 1)
	go func() {
		_, err := query(context.Background(), seg, "SELECT count(*) FROM generate_series(1, 100000000000)")
		busy <- err
	}()
	eventually(t, "busy backend", func() error {
		if got, err := query(t.Context(), seg, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, 1000%' AND pid <> pg_backend_pid()"); got != "1" {
			return fmt.Errorf("%s, %v", got, err)
		}
		return nil
	})
	if err := syscall.Kill(before.Live.Postgres.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-busy; err == nil {
		t.Error("a query outlived its server")
	}
	eventually(t, "server comes back", func() error { return restarted(c, 2, before.Live.Postgres.Pid) })
	after := c.status(t, 2)
	if after.Pid != before.Pid || after.Live.Postgres.Restarts != before.Live.Postgres.Restarts+1 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	mustQuery(t, seg, "SELECT content FROM made", "0")
	eventually(t, "whole cluster", func() error { return allReady(t.Context(), c) })
}

func kill(t *testing.T, c *Cluster, dbids ...uint16) {
	t.Helper()
	var pids []int
	for _, d := range dbids {
		pids = append(pids, c.status(t, d).Pid)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "instances come back", func() error {
		for k, d := range dbids {
			list, err := c.Status(t.Context())
			if err != nil || list[d-1].Pid == pids[k] {
				return fmt.Errorf("dbid %d still has pid %d, %v", d, pids[k], err)
			}
		}
		return allReady(t.Context(), c)
	})
	for _, d := range dbids {
		i := c.Instances()[d-1]
		mustQuery(t, i, "SELECT content FROM made", fmt.Sprint(i.Content))
	}
}

func testInstanceDies(t *testing.T, c *Cluster) {
	for _, dbid := range []uint16{1, 3, 4} {
		kill(t, c, dbid)
	}
}

func testNeighboursDie(t *testing.T, c *Cluster) { kill(t, c, 2, 3, 4) }

// Commits wait for the standby while it is there, and do not hang when it is
// not.
func testStandbyGoes(t *testing.T, c *Cluster) {
	co, standby := c.Instances()[0], c.Instances()[3]
	inSync := func() error {
		if st := c.status(t, 1); st.Live.SyncStandby != "*" {
			return fmt.Errorf("synchronous_standby_names is %q", st.Live.SyncStandby)
		}
		return nil
	}
	eventually(t, "in sync", inSync)
	if err := instance.SetWanted(data(standby), false); err != nil {
		t.Fatal(err)
	}
	if err := stopInstance(t.Context(), standby, Immediate, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	mustQuery(t, co, "CREATE TABLE alone (v int); INSERT INTO alone VALUES (1); SELECT v FROM alone", "1")
	if d := time.Since(began); d > 8*time.Second {
		t.Errorf("commits hung for %v without the standby", d)
	}
	if st := c.status(t, 1); st.Live.SyncStandby != "" {
		t.Errorf("synchronous_standby_names is %q without a standby", st.Live.SyncStandby)
	}
	if st := c.status(t, 4); st.State() != "down" {
		t.Errorf("a stopped standby is %s", st.State())
	}
	if err := c.Start(t.Context(), StartOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "in sync again", inSync)
	mustQuery(t, co, "INSERT INTO alone VALUES (2)", "")
	eventually(t, "replay", func() error {
		if got, err := query(t.Context(), standby, "SELECT count(*) FROM alone"); got != "2" {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
}

// A cluster that died whole, as with the machine, starts over what it left.
func testAllDie(t *testing.T, c *Cluster) {
	list, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range list {
		_ = syscall.Kill(st.Pid, syscall.SIGKILL)
	}
	eventually(t, "death", func() error {
		for _, st := range list {
			if now := c.status(t, st.Dbid).State(); now != "dead" {
				return fmt.Errorf("a killed instance is %s", now)
			}
		}
		return nil
	})
	for _, st := range list {
		// Stale files that name the pid of somebody else.
		_ = os.WriteFile(data(st.Instance).PostmasterPid(), fmt.Appendf(nil, "%d\n%s\n0\n%d\n\n\n0 0\nready\n", os.Getpid(), st.Datadir, st.Port), 0o600)
	}
	if err := c.Start(t.Context(), StartOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "whole cluster", func() error { return allReady(t.Context(), c) })
	for _, i := range c.Instances() {
		mustQuery(t, i, "SELECT content FROM made", fmt.Sprint(i.Content))
	}
}
