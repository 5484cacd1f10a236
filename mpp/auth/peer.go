package auth

import (
	"net"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkPeer holds the role name to the name of the operating system user at
// the other end of a unix socket.
func (a *Authenticator) checkPeer(rule *Rule, conn net.Conn, role string) error {
	failed := fatal(codeInvalidAuthorization, `Peer authentication failed for user "%s"`, role)
	uc, ok := conn.(syscall.Conn)
	if !ok || conn.RemoteAddr().Network() != "unix" {
		return failed.withLog("connection is not a unix socket")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return failed.withLog("could not get peer credentials: %v", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	if err != nil {
		return failed.withLog("could not get peer credentials: %v", err)
	}
	uid := strconv.FormatUint(uint64(cred.Uid), 10)
	u, err := user.LookupId(uid)
	if err != nil {
		return failed.withLog("could not look up local user ID %s: %v", uid, err)
	}
	if why := a.checkUserMap(rule, u.Username, role); why != "" {
		return failed.withLog("%s", why)
	}
	return nil
}
