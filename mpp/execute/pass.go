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
// that is told to PostgreSQL as a parameter, which nobody can look up. It is
// good for the executor's own connection and while the slice is open.

// pass is the content of such a file.
type pass struct {
	Pid uint32 `json:"pid"` // of the PostgreSQL process
	*Read
}

// issuePasses writes the passes of slices about to be opened and adds the
// parameters that name them. The caller holds mu.
func (q *session) issuePasses(slices []Slice) error {
	for i := range slices {
		s := &slices[i]
		if s.Read == nil {
			continue
		}
		dir := q.srv.cfg.Dir.ReadsDir()
		name := rand.Text()
		content, err := json.Marshal(pass{Pid: q.pgKey.ProcessID, Read: s.Read})
		if err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		if err == nil {
			q.passes = append(q.passes, filepath.Join(dir, name))
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
		if err != nil {
			q.dropPasses()
			return &motion.Error{Code: "58030", Message: "cannot prepare to read a table with the rights of a view's owner", Detail: err.Error()}
		}
		s.Params = append(s.Params, Param{OID: 25, Value: []byte(name)})
	}
	return nil
}

// dropPasses removes the passes of the open slices. The caller holds mu.
func (q *session) dropPasses() {
	for _, p := range q.passes {
		_ = os.Remove(p)
	}
	q.passes = nil
}
