package store

import (
	"context"
	"slices"
	"sync"
)

// line lets those who want to write wait, one after the other. The pool of database/sql would let them in at random.
// Whoever begins or ends an attempt comes before those who store an epoch, because everybody else who wants a trial
// waits for it, while only its own training waits for an epoch. Epochs cannot wait for ever, because a worker brings
// epochs between a beginning and an end.
type line struct {
	mu            sync.Mutex
	busy          bool
	first, epochs []chan struct{} // each is closed when its turn comes
}

// enter waits in a row of the line. After a nil error the caller has to call leave.
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
