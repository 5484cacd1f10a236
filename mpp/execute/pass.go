package execute

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/trunkline-db/trunkline/motion"
)

// A slice that reads a table as the owner of a view runs on the user's own
// connection to PostgreSQL, in his transaction, which cannot take the owner's
// role. The function that it calls, pg_catalog.gp_owner_rows(), can read
// everything, and any user can call it. So it reads only what a pass says: a
// file that an executor alone can write, of a name that cannot be guessed and
// that is told to PostgreSQL as a parameter. It is good for the executor's own
// connection, and there only while that slice runs and has sent no row: the
// function has read all by then, and no other slice of the statement, which
// may call functions of the user's, runs on the connection meanwhile.

// pass is such a file. A nil *pass does nothing.
type pass struct {
	Pid uint32 `json:"pid"` // of the PostgreSQL process
	*Read
	file   string
	issued bool
}

// newPass makes the pass of a slice about to be opened, not yet issued, and
// adds the parameter that names it.
func (q *session) newPass(s *Slice) *pass {
	name := rand.Text()
	s.Params = append(s.Params, Param{OID: 25, Value: []byte(name)})
	return &pass{Pid: q.pgKey.ProcessID, Read: s.Read, file: filepath.Join(q.srv.cfg.Dir.ReadsDir(), name)}
}

// issue makes the pass good.
func (p *pass) issue() error {
	if p == nil {
		return nil
	}
	content, err := json.Marshal(p)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(p.file), 0o700)
	}
	if err == nil {
		p.issued = true
		err = os.WriteFile(p.file, content, 0o600)
	}
	if err != nil {
		p.revoke()
		return &motion.Error{Code: "58030", Message: "cannot prepare to read a table with the rights of a view's owner", Detail: err.Error()}
	}
	return nil
}

// revoke ends it. It may be called any number of times.
func (p *pass) revoke() {
	if p != nil && p.issued {
		p.issued = false
		_ = os.Remove(p.file)
	}
}
