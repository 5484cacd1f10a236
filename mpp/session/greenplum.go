package session

// runGreenplumOnly completes a statement of which nothing is left for
// PostgreSQL: an empty one, or ALTER FUNCTION … EXECUTE ON alone.
func (s *Session) runGreenplumOnly(req *request) error {
	if req.stmt.ExecuteOn != 0 {
		return sqlError("0A000", "ALTER FUNCTION … EXECUTE ON is not supported; use CREATE OR REPLACE FUNCTION")
	}
	return nil
}
