// Package space describes the design space of interleaved group convolutions (IGC): the pairs
// (L, M), how much they cost, which of them fit a budget, and the networks built of them.
//
// A group convolution divides its channels into partitions and convolves each partition alone.
// An IGC block is two group convolutions, one after the other:
//
//   - The primary one has L partitions of M channels. Its kernel has S positions; S is 9 for a
//     3×3 kernel.
//   - The secondary one is 1×1 and has M partitions of L channels. Each of them takes one channel
//     from every primary partition, so each output channel depends on all input channels.
//
// The pair (L, M), written L24M2, is the choice to make. The block is G = L·M channels wide. It has
//
//	T = S·L·M² + M·L² = G²·(S/L + 1/M)
//
// parameters, where S·L·M² of them are in the primary convolution. The convolutions have no biases,
// and the parameters of batch norm are not counted. For example, L24M2 with S = 9 has G = 48
// channels and T = 9·24·4 + 2·576 = 2,016 parameters. For the same T, the pairs with L near M·S are
// the widest.
//
// Blocks of later papers are products of group convolutions too: a Family has a list of Factors, from
// which everything else follows, and SystemBudget says which of its networks a budget allows.
//
// The source is Zhang, Qi, Xiao, Wang, "Interleaved Group Convolutions for Deep Neural Networks",
// ICCV 2017, arXiv:1707.02725. Comments number equations, tables and figures as this paper does.
package space

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxPartitions is the largest L or M that ParsePair accepts. It keeps the parameters of a pair
// below 2⁶³ for every kernel of at most 1,000 positions.
const maxPartitions = 100_000

// Pair holds the numbers of partitions of an IGC block: L primary partitions of M channels each,
// and M secondary partitions of L channels each. Both numbers are at least 1.
type Pair struct{ L, M int }

// Width returns the number of channels of the block, G = L·M.
func (p Pair) Width() int { return p.L * p.M }

// Params returns the number of parameters of the block (Eq. 7). kernel is the number of positions
// of the primary kernel: 9 for 3×3.
func (p Pair) Params(kernel int) int {
	return kernel*p.L*p.M*p.M + p.M*p.L*p.L
}

// String returns the pair as the paper writes it, for example "L24M2".
func (p Pair) String() string { return fmt.Sprintf("L%dM%d", p.L, p.M) }

// ParsePair reads a pair from a text like "40x2" or "L40M2". L and M are decimal numbers from 1 to
// 100,000; for any other text it returns an error.
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
		// ParseUint refuses a sign, which Atoi would accept.
		n, err := strconv.ParseUint(part.digits, 10, 31)
		if err != nil || n < 1 || n > maxPartitions {
			return Pair{}, fmt.Errorf("pair %q: %s is %q, want a number from 1 to %d, like \"40x2\" or \"L40M2\"",
				text, part.name, part.digits, maxPartitions)
		}
		*part.to = int(n)
	}
	return p, nil
}

// ComparePairs orders pairs by rising M, then by rising L. This is the order of a curve of accuracy
// against M. It returns −1, 0 or 1, as cmp.Compare does.
func ComparePairs(a, b Pair) int {
	return cmp.Or(cmp.Compare(a.M, b.M), cmp.Compare(a.L, b.L))
}

// WidthBound returns the largest width, in channels, that a product of n group convolutions can have
// with a budget of t parameters, where the first has a kernel of s positions and partitions of M
// channels, and the others are 1×1 with partitions of K₂, …, K_n channels. A product of C = M·K₂·…·K_n
// channels has t = C·(M·s + K₂ + … + K_n) parameters. The n terms of the sum have the product s·C, so
// their mean is at least its n-th root, and
//
//	C ≤ (t / (n·s^(1/n)))^(n/(n+1))
//
// A product reaches the bound where M·s = K₂ = … = K_n. n = 2 is an IGC block (Eq. 15), which
// reaches it where L = M·s: see WidestPoint. n = 1 is a regular convolution.
func WidthBound(n int, t, s float64) float64 {
	k := float64(n)
	return math.Pow(t/(k*math.Pow(s, 1/k)), k/(k+1))
}

// WidestPoint returns the real numbers L and M that use up a budget of T parameters and give the
// widest block for a primary kernel of S positions:
//
//	M = (T / (2·S²))^(1/3), L = M·S
//
// Their product is WidthBound. The widest pairs of whole numbers lie near this point.
func WidestPoint(budget, kernel int) (l, m float64) {
	s := float64(kernel)
	m = math.Cbrt(float64(budget) / (2 * s * s))
	return m * s, m
}
