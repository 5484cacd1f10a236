package execute

import (
	"fmt"

	"github.com/trunkline-db/trunkline/motion"
)

// defaultInterconnect makes the interconnect types that are built in.
func (s *Server) defaultInterconnect(typ string, _ map[string]string) (motion.Interconnect, error) {
	return nil, &motion.Error{
		Code:    "0A000",
		Message: fmt.Sprintf("interconnect type %q is not available in this build", typ),
		Hint:    `Set gp_interconnect_type to "tcp" or "proxy".`,
	}
}
