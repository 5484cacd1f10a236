package instance

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// prepare writes the configuration before a start of the PostgreSQL server.
// Commits do not wait for the standby until it is seen streaming. A file that
// was broken since the last start must not keep a server that died from
// coming back.
func (r *runner) prepare() error {
	r.setSync("")
	err := r.writeConf("", true)
	if err != nil && r.hasConf() {
		r.problem("postgresql.conf cannot be used; going on with the settings read before", err)
		err = r.writeConf("", false)
	}
	return err
}

func (r *runner) hasConf() bool {
	r.confMu.Lock()
	defer r.confMu.Unlock()
	return r.conf != nil
}

// writeConf writes the server's configuration with the given
// synchronous_standby_names. With fresh it reads the user's file again, else
// it keeps to what was read last, so that edits wait for a reload.
func (r *runner) writeConf(sync string, fresh bool) error {
	r.confMu.Lock()
	defer r.confMu.Unlock()
	if fresh || r.conf == nil {
		uc, err := readUserConf(r.dir, func(err error) { r.problem("setting is not used", err) })
		if err != nil {
			return err
		}
		r.conf = uc
	}
	if err := generate(r.facts, r.conf, sync, time.Now().UnixNano()); err != nil {
		return err
	}
	r.sync = sync
	r.board.update(func(st *Status) { st.SyncStandby = sync })
	return nil
}

// problem logs what went wrong and shows it in the status.
func (r *runner) problem(what string, err error) {
	r.log.Error(what, "err", err)
	r.board.update(func(st *Status) { st.LastError = what + ": " + err.Error() })
}

// setSync says what synchronous_standby_names shall be.
func (r *runner) setSync(names string) {
	r.wantMu.Lock()
	changed := r.syncWant != names
	r.syncWant = names
	r.wantMu.Unlock()
	if changed {
		wish(r.syncs)
	}
}

// configure does the reloads and follows the standby.
func (r *runner) configure(ctx context.Context) {
	for {
		full := false
		select {
		case <-ctx.Done():
			return
		case <-r.reloads:
			full = true
		case <-r.syncs:
		}
		r.wantMu.Lock()
		sync := r.syncWant
		r.wantMu.Unlock()
		r.confMu.Lock()
		written := r.sync
		r.confMu.Unlock()
		if !full && sync == written {
			continue
		}
		if sync != written {
			r.log.Info("synchronous_standby_names changes", "from", written, "to", sync)
		}
		began := time.Now()
		if err := r.reload(ctx, sync, full); err != nil {
			r.problem("reload", err)
		}
		if full {
			r.board.update(func(st *Status) { st.Reloaded = began })
			r.log.Info("configuration reloaded")
		}
	}
}

// reload writes the configuration and has the server read it; a full reload
// goes on to the proxy and the network servers.
func (r *runner) reload(ctx context.Context, sync string, full bool) error {
	err := r.writeConf(sync, full)
	if pid := r.board.get().Postgres.Pid; err == nil && pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGHUP)
		if full {
			err = r.confirmReload(ctx)
		}
	}
	if full {
		if r.proxy != nil {
			r.proxy.reload()
		}
		r.confMu.Lock()
		servers := r.servers
		r.confMu.Unlock()
		for _, s := range servers {
			s.Reload()
		}
	}
	return err
}

// confirmReload waits until a new connection to the server sees the files
// just written, so that whoever connects after the reload does too.
func (r *runner) confirmReload(ctx context.Context) error {
	want, err := os.ReadFile(r.dir.PGConf())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	for {
		conn, err := connectLocal(ctx, r.dir, r.facts.self.Port, "reload")
		if err == nil {
			res := conn.ExecParams(ctx, "SELECT current_setting('"+serialName+"')", nil, nil, nil, nil).Read()
			closeConn(conn)
			if res.Err == nil && len(res.Rows) == 1 && strings.Contains(string(want), serialLine(string(res.Rows[0][0]))) {
				return nil
			}
		}
		if !sleep(ctx, 5*time.Millisecond) {
			return fmt.Errorf("the PostgreSQL server did not take the new configuration within %v; see %s/postgres.log",
				reloadTimeout, r.dir.LogDir())
		}
	}
}
