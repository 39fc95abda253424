package graph

import (
	"cmp"
	"slices"
)

// Span is a piece of memory that is in use from step First to step Last, both
// included. Arrange finds its place, At.
type Span struct {
	Bytes, At   int
	First, Last int
}

// Arrange gives every span a place that is a multiple of align, the largest span
// first. Spans that are in use at the same step do not overlap; others may share
// memory. It returns how many bytes all take together.
func Arrange(spans []*Span, align int) (end int) {
	size := func(s *Span) int { return (s.Bytes + align - 1) / align * align }
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b *Span) int { return b.Bytes - a.Bytes })
	var placed []*Span // in the order of their places
	for _, s := range spans {
		s.At = 0
		for _, o := range placed {
			together := s.First <= o.Last && o.First <= s.Last
			if together && s.At < o.At+size(o) && o.At < s.At+size(s) {
				s.At = o.At + size(o)
			}
		}
		end = max(end, s.At+size(s))
		i, _ := slices.BinarySearchFunc(placed, s, func(x, y *Span) int { return cmp.Compare(x.At, y.At) })
		placed = slices.Insert(placed, i, s)
	}
	return end
}
