//go:build gpu

package gpu

import (
	"slices"
	"testing"
	"time"
)

func TestTheQueueIsFullWhereAStartWaits(t *testing.T) {
	const us, step = time.Microsecond, 1400 * time.Microsecond
	quick := func(n int) []time.Duration { return slices.Repeat([]time.Duration{50 * us}, n) }
	for _, c := range []struct {
		name   string
		starts []time.Duration
		want   int
	}{
		{"never", quick(128), 128},
		{"a start waits for a step", slices.Concat(quick(100), []time.Duration{1390 * us}, quick(27)), 100},
		{"a start is slow, but waits for no step", slices.Concat(quick(10), []time.Duration{300 * us}, quick(117)), 128},
		{"the first start of all is slow", slices.Concat([]time.Duration{900 * us}, quick(127)), 128},
	} {
		if n, each := queue(c.starts, step); n != c.want || each != 50*us {
			t.Errorf("%s: %d steps of %v, want %d", c.name, n, each, c.want)
		}
	}
	if n, _ := queue([]time.Duration{us}, step); n != 1 {
		t.Errorf("one step: %d", n)
	}
}
