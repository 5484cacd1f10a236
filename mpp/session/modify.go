package session

func (s *Session) runModify(req *request) error { return internal("UPDATE") }
