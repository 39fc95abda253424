// Package space is the design space of interleaved group convolutions (IGC):
// the pairs (L, M), what they cost, which of them fit a parameter budget, and
// the networks built of them.
//
// A block has a primary group convolution of S kernel positions with L
// partitions of M channels, and a secondary 1×1 group convolution with M
// partitions of L channels. Its width is G = L·M channels and its parameters
// are
//
//	T = S·L·M² + M·L² = G²·(S/L + 1/M)
//
// counted in weights; there are no biases and batch norm is not counted. The
// pair L24M2 at S = 9: G = 48, T = 9·24·4 + 2·576 = 2,016.
//
// Source: Zhang, Qi, Xiao, Wang, "Interleaved Group Convolutions for Deep
// Neural Networks", ICCV 2017, arXiv:1707.02725; equations and tables are
// numbered as there.
package space

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxPartitions bounds L and M of a parsed pair. The parameters of such a
// pair stay below 2⁶³ for every kernel of at most 1,000 positions.
const maxPartitions = 100_000

// Pair is the partition numbers of an IGC block: L primary partitions of M
// channels, M secondary partitions of L channels. Both are at least 1.
type Pair struct{ L, M int }

// Width is the number of channels of the block, G = L·M.
func (p Pair) Width() int { return p.L * p.M }

// Params is the number of weights of the block (Eq. 7) for a primary kernel
// of the given number of spatial positions, 9 for 3×3.
func (p Pair) Params(kernel int) int {
	return kernel*p.L*p.M*p.M + p.M*p.L*p.L
}

// String is the paper's spelling, "L24M2".
func (p Pair) String() string { return fmt.Sprintf("L%dM%d", p.L, p.M) }

// ParsePair reads "40x2" or "L40M2". L and M are decimal numbers from 1 to
// 100,000.
func ParsePair(text string) (Pair, error) {
	l, m, ok := strings.Cut(text, "x")
	if rest, isPaper := strings.CutPrefix(text, "L"); isPaper {
		l, m, ok = strings.Cut(rest, "M")
	}
	if !ok {
		return Pair{}, fmt.Errorf("pair %q: want L and M, like \"40x2\" or \"L40M2\"", text)
	}
	var p Pair
	for _, part := range []struct {
		name, digits string
		to           *int
	}{{"L", l, &p.L}, {"M", m, &p.M}} {
		// ParseUint, because Atoi would take a sign.
		n, err := strconv.ParseUint(part.digits, 10, 31)
		if err != nil || n < 1 || n > maxPartitions {
			return Pair{}, fmt.Errorf("pair %q: %s is %q, want a number from 1 to %d, like \"40x2\" or \"L40M2\"",
				text, part.name, part.digits, maxPartitions)
		}
		*part.to = int(n)
	}
	return p, nil
}

// ComparePairs orders by rising M, then by rising L: the order of a curve of
// accuracy against M.
func ComparePairs(a, b Pair) int {
	return cmp.Or(cmp.Compare(a.M, b.M), cmp.Compare(a.L, b.L))
}

// WidthBound is the largest width that a block of the given number of
// parameters can have (Eq. 15),
//
//	G ≤ (T / (2·√S))^(2/3),
//
// reached where L = M·S; see WidestPoint.
func WidthBound(budget, kernel int) float64 {
	root := math.Cbrt(float64(budget) / (2 * math.Sqrt(float64(kernel))))
	return root * root
}

// WidestPoint is where L = M·S meets the budget, as real numbers:
//
//	M = (T / (2·S²))^(1/3), L = M·S.
//
// The widest pairs of a budget lie around it; l·m is WidthBound.
func WidestPoint(budget, kernel int) (l, m float64) {
	s := float64(kernel)
	m = math.Cbrt(float64(budget) / (2 * s * s))
	return m * s, m
}
