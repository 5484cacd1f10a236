package benchreport

import "errors"

// Interrupted is the error of a run whose context has ended. What that broke
// is not in it.
type Interrupted struct {
	Cause error // the context's
	// Left says why something that the run has made is still there; nil when all
	// is removed.
	Left error
}

func (e *Interrupted) Error() string { return errors.Join(e.Cause, e.Left).Error() }

// Unwrap gives both.
func (e *Interrupted) Unwrap() []error { return []error{e.Cause, e.Left} }
