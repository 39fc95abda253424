package live

import (
	"fmt"
	"net/http"
	"time"
)

// serveEvents tells a page of changes. It sends "state" with the ID of what is
// shown, first and whenever that changes, and "beat" in between. Both carry the
// version of the assets, by which a page of an older server loads itself anew.
func (s *Site) serveEvents(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "30") // seconds
		http.Error(w, "too many pages are open: close some", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // otherwise a proxy holds events back
	out := http.NewResponseController(w)
	fmt.Fprint(w, "retry: 2000\n\n")
	sent, last := "", time.Time{}
	tick := time.NewTicker(min(often, s.interval))
	defer tick.Stop()
	for {
		shown, asked := s.current()
		event := "beat"
		if shown.id != sent {
			event = "state"
		}
		if event == "state" || time.Since(last) >= s.interval {
			sent, last = shown.id, time.Now()
			_, err := fmt.Fprintf(w, "event: %s\ndata: %s %s %s\n\n",
				event, shown.id, s.version, asked.UTC().Format(time.RFC3339))
			if err != nil || out.Flush() != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}
