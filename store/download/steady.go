package download

import (
	"net/http"
	"time"
)

// Patience is how long a client may take nothing of its answer before it is cut off.
const Patience = 30 * time.Second

// Steady cuts off a client that takes nothing for so long. The time begins again with each piece that the client takes,
// so that large answers reach slow clients, and it does not run while there is nothing to send.
func Steady(next http.Handler, patience time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &steady{w, http.NewResponseController(w), patience}
		s.wait(false) // the request before this one on its connection has left a deadline
		next.ServeHTTP(s, r)
		s.wait(true) // the server sends the end of the answer after this
	})
}

// steady is an http.ResponseWriter whose writes have deadlines.
type steady struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
}

// Unwrap is for http.ResponseController.
func (s *steady) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// wait begins or ends to wait for the client. A deadline that passes ends a stream of HTTP/2 even if nothing is written.
func (s *steady) wait(on bool) {
	var deadline time.Time
	if on {
		deadline = time.Now().Add(s.patience)
	}
	s.control.SetWriteDeadline(deadline) // only the recorders of tests have no deadlines
}

// Write writes piece by piece. A client needs a kilobyte a second.
func (s *steady) Write(b []byte) (n int, err error) {
	const piece = 32 << 10
	for err == nil {
		s.wait(true)
		var m int
		m, err = s.ResponseWriter.Write(b[:min(len(b), piece)])
		n, b = n+m, b[m:]
		if len(b) == 0 {
			break
		}
	}
	if err == nil {
		s.wait(false)
	}
	return n, err
}

// FlushError is for http.ResponseController.
func (s *steady) FlushError() error {
	s.wait(true)
	err := s.control.Flush()
	if err == nil {
		s.wait(false)
	}
	return err
}
