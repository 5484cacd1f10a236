package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/icwire"
)

// unixListener is a listening unix socket that replaces whatever is at its
// path and goes away with its file.
type unixListener struct {
	*net.UnixListener
	path string
	file os.FileInfo // to tell our file from one that replaced it
}

// listenUnix makes a socket of mode 0700 at path. It comes to its name in one
// step, so that nobody finds it half made.
func listenUnix(path string) (*unixListener, error) {
	// Nobody else's file is in the way of a name nobody can foresee.
	temp := fmt.Sprintf("%s.%d.%x", path, os.Getpid(), time.Now().UnixNano()&0xffffff)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	u := &unixListener{UnixListener: l, path: path}
	err = os.Chmod(temp, 0o700)
	if err == nil {
		u.file, err = os.Lstat(temp)
	}
	if err == nil {
		if err = os.Rename(temp, path); err != nil {
			err = notOurs(path, err)
		}
	}
	if err != nil {
		l.Close()
		os.Remove(temp)
		return nil, err
	}
	return u, nil
}

// notOurs adds to err whose the file at path is, if it is another user's. In
// /tmp nobody can replace it then.
func notOurs(path string, err error) error {
	fi, serr := os.Lstat(path)
	if serr != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("the file there belongs to user id %d and has to be removed: %w", st.Uid, err)
	}
	return err
}

// there says whether the file is still the listener's.
func (u *unixListener) there() (ours, any bool) {
	fi, err := os.Lstat(u.path)
	return err == nil && os.SameFile(fi, u.file), err == nil
}

func (u *unixListener) close() {
	if ours, _ := u.there(); ours {
		os.Remove(u.path)
	}
	u.Close()
}

// allowed says whether the process at the other end runs as our user or root.
func allowed(raw syscall.RawConn) error {
	var cred *unix.Ucred
	var err error
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("peer credentials: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("process %d runs as user id %d, not as %d", cred.Pid, cred.Uid, os.Geteuid())
	}
	return nil
}

// accept hands each connection of u to serve, which owns it, until u is closed.
func (p *Proxy) accept(ctx context.Context, u *unixListener, serve func(*net.UnixConn, syscall.RawConn)) {
	for {
		uc, err := u.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !p.acceptFailed(ctx, u.path, err) {
				return
			}
			continue
		}
		p.wg.Go(func() {
			raw, err := uc.SyscallConn()
			if err == nil {
				err = allowed(raw)
			}
			if err != nil {
				p.rejections[rejUser].Add(1)
				p.log.limited("refused user", slog.LevelWarn, "refused a connection", "socket", u.path, "reason", err.Error())
				uc.Close()
				return
			}
			serve(uc, raw)
		})
	}
}

// serveBackend takes a backend from its hello to its end, or to the moment
// from which somebody else serves it.
func (p *Proxy) serveBackend(ctx context.Context, uc *net.UnixConn, raw syscall.RawConn) {
	stop := context.AfterFunc(ctx, func() { uc.Close() })
	st := p.locals.add(uc)
	limit := p.times().HelloTimeout
	_ = uc.SetDeadline(time.Now().Add(limit)) // fails if closed; so will the read
	h, d, err := readHello(uc, icwire.Hello)
	stop()
	if p.locals.remove(st) {
		err = errCrowded
	}
	if err != nil {
		uc.Close()
		if ctx.Err() != nil {
			return
		}
		if kind, why, ok := p.reject(noHello(err), limit); ok {
			p.log.limited("no hello "+rejectionNames[kind], slog.LevelWarn, "closed a connection of the backends' socket", "reason", why)
		}
		return
	}
	_ = uc.SetDeadline(time.Time{})
	var run *conn
	pr, why := p.route(h, d)
	if why == "" {
		run, why = pr.register(uc, raw, h, d)
	}
	switch {
	case why != "":
		p.refused.Add(1)
		p.log.limited("backend refused", slog.LevelWarn, "a backend was refused", "connection", h.SrcKey().String(), "reason", why)
		if p.cfg.AckRefused {
			_, _ = uc.Write(h.HelloAck().Append(nil, d))
		}
		endOrderly(uc, raw)
	case run != nil:
		run.run()
	}
}

// route finds the peer a backend wants, or says why it cannot be served.
func (p *Proxy) route(h icwire.Header, d icwire.Dialect) (*peer, string) {
	if h.SrcDbid != p.dbid {
		return nil, fmt.Sprintf("the backend says its dbid is %d, this is the proxy of %s", h.SrcDbid, p.label)
	}
	if err := p.learn(d, true); err != nil {
		return nil, err.Error()
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if why := p.unfit(); why != "" {
		return nil, why
	}
	pr := p.peers[h.DstDbid]
	switch {
	case pr == nil:
		return nil, fmt.Sprintf("dbid %d is not in the address list of the proxy of %s", h.DstDbid, p.label)
	case pr.role == NoDial:
		return nil, pr.cause()
	}
	return pr, ""
}

// followPostmaster gives the backends' socket the name by which they look for
// it, which changes with the postmaster's process id. It is called often, so it
// also looks after those who say nothing.
func (p *Proxy) followPostmaster(ctx context.Context) {
	p.callers.look()
	p.locals.look()
	port, pid, err := p.cfg.Source.Postmaster()
	if err != nil {
		p.log.limited("postmaster", slog.LevelDebug, "no postmaster", "error", err)
		p.setServer(0, err.Error())
		return
	}
	p.setServer(pid, "")
	path := filepath.Join(p.cfg.SocketDir, filepath.Base(datadir.ICProxySocket(port, pid)))
	p.mu.RLock()
	old := p.socket
	p.mu.RUnlock()
	if old != nil && old.path == path {
		ours, other := old.there()
		if ours {
			return
		}
		switch {
		case !other:
		case p.cfg.TakeOver:
			p.log.limited("taken back", slog.LevelWarn, "the backends' socket was replaced, as Greenplum's proxy does when it starts; taking it back", "socket", path)
		default:
			p.log.limited("taken over", slog.LevelError, "another proxy has taken over the backends' socket", "socket", path)
			p.setSocketError("another proxy has taken it over")
			return
		}
	}
	u, err := listenUnix(path)
	if err != nil {
		p.log.limited("socket", slog.LevelError, "cannot make the backends' socket", "socket", path, "error", err)
		p.setSocketError(reason(err))
		return
	}
	p.log.Info("listening to backends", "socket", path)
	p.wg.Go(func() {
		p.accept(ctx, u, func(uc *net.UnixConn, raw syscall.RawConn) { p.serveBackend(ctx, uc, raw) })
	})
	p.mu.Lock()
	p.socket, p.socketErr = u, ""
	p.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// setServer takes note of the postmaster, or that there is none.
func (p *Proxy) setServer(pid int, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server, p.serverErr = pid, why
}

func (p *Proxy) setSocketError(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.socketErr = why
}
