package kernel

import "github.com/sourcegraph/conc"

// Team splits the blocks of a batch over a fixed number of threads. Which
// thread does which block is fixed, and no sum crosses blocks, so results do
// not depend on the number of threads.
type Team struct {
	threads int
}

// NewTeam returns a team of n threads, at least 1.
func NewTeam(n int) *Team { return &Team{threads: max(n, 1)} }

// Threads returns the number of threads.
func (t *Team) Threads() int { return t.threads }

// Do calls f for each block, with the number of the thread that runs it, and
// returns when all are done. A panic of f reaches the caller.
func (t *Team) Do(blocks int, f func(block, thread int)) {
	if t.threads == 1 {
		for b := range blocks {
			f(b, 0)
		}
		return
	}
	var wg conc.WaitGroup
	for thread := range min(t.threads, blocks) {
		wg.Go(func() {
			for b := thread; b < blocks; b += t.threads {
				f(b, thread)
			}
		})
	}
	wg.Wait()
}
