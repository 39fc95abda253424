package store

import (
	"context"
	"slices"
	"sync"
)

// line is where those wait who want to write, one after the other. The pool of
// database/sql would let them in at random. Epochs come last: who begins or ends
// a turn holds up everybody else who wants one, while behind an epoch waits only
// its own training. They cannot wait for ever, for a worker brings epochs only
// between the two.
type line struct {
	mu            sync.Mutex
	busy          bool
	first, epochs []chan struct{} // closed when it is their turn
}

// enter waits in a row of the line; leave ends what a nil error began.
func (l *line) enter(ctx context.Context, row *[]chan struct{}) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy {
		l.busy = true
		return nil
	}
	turn := make(chan struct{})
	*row = append(*row, turn)
	l.mu.Unlock()
	select {
	case <-turn:
	case <-ctx.Done():
	}
	l.mu.Lock()
	if i := slices.Index(*row, turn); i >= 0 { // ctx has ended
		*row = slices.Delete(*row, i, i+1)
		return ctx.Err()
	}
	return nil
}

func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, row := range []*[]chan struct{}{&l.first, &l.epochs} {
		if len(*row) > 0 {
			close((*row)[0])
			*row = (*row)[1:]
			return
		}
	}
	l.busy = false
}
