package session

import (
	"fmt"
	"strconv"
	"strings"
)

// order carries out what the functions of package catalog ask for: "cancel pid"
// and "terminate pid" for the session that clients know by that pid, which may
// be at work on the segments while its process here has nothing to do. The
// answer says whether there is such a session. Whether the one who asks may was
// looked at before.
func (s *Server) order(text string) (string, error) {
	verb, number, _ := strings.Cut(text, " ")
	pid, err := strconv.ParseUint(number, 10, 32)
	if err != nil || verb != "cancel" && verb != "terminate" {
		return "", internal("%q is no order", text)
	}
	s.mu.Lock()
	sess := s.sessions[uint32(pid)]
	s.mu.Unlock()
	if sess != nil {
		if verb == "terminate" {
			sess.terminated.Store(true)
		}
		sess.cancelStatement()
	}
	return fmt.Sprint(sess != nil), nil
}
