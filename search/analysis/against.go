package analysis

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// NetworksTest is the t test of a mean over networks, with the residual of the model difference =
// effect of the network + error.
const NetworksTest Test = "networks"

// StudyComparison says how the scores of a study B differ from those of a study A that trained the
// same networks from the same seeds. Every difference is a score of B less one of A. Networks are
// numbered from 0.
type StudyComparison struct {
	// A and B are the summaries of the networks; the interval of a mean is by its own scores.
	A, B []Summary
	// Networks has the difference of each network, by the paired t test. Its Holm is corrected for
	// the number of networks.
	Networks []Comparison
	// Mean is the mean of the differences of the networks, each of which counts the same. It is a
	// statement about these networks and not about others. Spread is the standard deviation of its
	// error: of single differences around the mean of their network.
	Mean   Comparison
	Spread float64
	// Interaction tests whether the difference depends on the network.
	Interaction FTest
	// SpreadA and SpreadB are the residual standard deviations of the additive model of each study.
	// Spreads compares their squares. Ratio is SpreadB/SpreadA, with the ends of its 95 % interval. The
	// interval and the test take the residuals of A and B as independent: a luck that both share makes
	// them find less.
	SpreadA, SpreadB float64
	Spreads          FTest
	Ratio, Low, High float64
	// Couples are all couples of networks.
	Couples []Couple
	// RankA and RankB are the places of the networks by their mean, from 1. Equal means share a place.
	RankA, RankB []int
}

// FTest is an F test with its degrees of freedom. F and P are NaN if the scores are too few.
type FTest struct {
	F, P                   float64
	Numerator, Denominator int
}

// Couple is a couple of networks, of which X has the better place in study A, or the same. InA and
// InB compare X with Y in each study as Findings.Compare does, and are corrected by Holm for all
// couples.
type Couple struct {
	X, Y     int
	InA, InB Comparison
	// Swapped says that X has the better place in study A, and Y in study B.
	Swapped bool
	// Neighbours says that Y follows X in study A.
	Neighbours bool
}

// CompareStudies compares two studies by the samples of the same networks, in the same order, each
// with a score. The samples of a network have the same seeds in both.
func CompareStudies(a, b []Sample) StudyComparison {
	nan := math.NaN()
	inA, inB := fitted(a), fitted(b)
	s := StudyComparison{A: inA.Summaries, B: inB.Summaries, Spread: nan, SpreadA: inA.Model.Spread(),
		SpreadB: inB.Model.Spread(), Ratio: nan, Low: nan, High: nan}
	s.Interaction, s.Spreads = FTest{F: nan, P: nan}, FTest{F: nan, P: nan}
	var differences [][]float64
	for i := range a {
		d := make([]float64, len(a[i].Scores))
		floats.SubTo(d, percents(b[i].Scores), percents(a[i].Scores))
		differences = append(differences, d)
		c := Comparison{A: i, B: i, Degrees: nan, Detectable: nan, Common: len(d)}
		if c.Difference, c.Half, c.P = PairedT(d); !math.IsNaN(c.P) {
			c.Test, c.Degrees = PairedTest, float64(len(d)-1)
		}
		s.Networks = append(s.Networks, c)
	}
	Correct(s.Networks)
	s.overNetworks(differences)
	s.compareSpreads(inA.Model.Degrees)
	s.RankA, s.RankB = places(s.A), places(s.B)
	s.compareOrders(inA, inB)
	return s
}

// fitted returns as much of Analyze as Findings.Compare needs. The check of the spreads takes most
// of the time of Analyze, and EqualSpreads remembers it.
func fitted(samples []Sample) Findings {
	f := Findings{Samples: samples, Model: FitAdditive(samples)}
	f.Pooled = f.Model.EqualSpreads()
	for _, sample := range samples {
		f.Summaries = append(f.Summaries, Summarize(percents(sample.Scores)))
	}
	return f
}

// overNetworks sets Mean, Spread and Interaction from the differences of each network: a one-way
// analysis of variance.
func (s *StudyComparison) overNetworks(differences [][]float64) {
	nan := math.NaN()
	s.Mean = Comparison{Half: nan, P: nan, Degrees: nan, Holm: nan, Detectable: nan}
	grand := stat.Mean(slices.Concat(differences...), nil)
	within, between, shares := 0., 0., 0.
	for i, d := range differences {
		mean, n := s.Networks[i].Difference, float64(len(d))
		s.Mean.Difference += mean / float64(len(differences))
		s.Mean.Common += len(d)
		for _, x := range d {
			within += (x - mean) * (x - mean)
		}
		between += n * (mean - grand) * (mean - grand)
		shares += 1 / n
	}
	degrees := s.Mean.Common - len(differences)
	if degrees < 1 || isNoise(math.Sqrt(within), 100) {
		return
	}
	s.Spread = math.Sqrt(within / float64(degrees))
	se := s.Spread * math.Sqrt(shares) / float64(len(differences))
	s.Mean.Test, s.Mean.Degrees = NetworksTest, float64(degrees)
	s.Mean.Half = quantileT(s.Mean.Degrees) * se
	s.Mean.P = twoSided(s.Mean.Difference/se, s.Mean.Degrees)
	one := []Comparison{s.Mean}
	Correct(one)
	s.Mean = one[0]
	if k := len(differences) - 1; k > 0 {
		s.Interaction = FTest{F: between / float64(k) / (s.Spread * s.Spread), Numerator: k, Denominator: degrees}
		s.Interaction.P = distuv.F{D1: float64(k), D2: float64(degrees)}.Survival(s.Interaction.F)
	}
}

// compareSpreads sets Spreads, Ratio and its interval. Both models have the same degrees of
// freedom, because they have the same networks and seeds.
func (s *StudyComparison) compareSpreads(degrees int) {
	if degrees < 1 || isNoise(s.SpreadA, 100) || isNoise(s.SpreadB, 100) {
		return
	}
	s.Ratio = s.SpreadB / s.SpreadA
	of := distuv.F{D1: float64(degrees), D2: float64(degrees)}
	s.Spreads = FTest{F: s.Ratio * s.Ratio, Numerator: degrees, Denominator: degrees}
	s.Spreads.P = 2 * min(of.CDF(s.Spreads.F), of.Survival(s.Spreads.F))
	end := math.Sqrt(of.Quantile((1 + confidence) / 2)) // the other one is 1/end: the degrees are equal
	s.Low, s.High = s.Ratio/end, s.Ratio*end
}

// falling returns the numbers of the samples by falling mean, equal ones in their own order.
func falling(list []Summary) []int {
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		if equalMeans(list[i], list[j]) {
			return 0
		}
		return cmp.Compare(list[j].Mean, list[i].Mean)
	})
	return order
}

func equalMeans(a, b Summary) bool { return isNoise(math.Abs(a.Mean-b.Mean), a.Mean) }

// places returns the place of each sample by its mean, from 1. Equal means share the best of their
// places: 1, 2, 2, 4.
func places(list []Summary) []int {
	order, rank := falling(list), make([]int, len(list))
	for k, i := range order {
		rank[i] = k + 1
		if k > 0 && equalMeans(list[order[k-1]], list[i]) {
			rank[i] = rank[order[k-1]]
		}
	}
	return rank
}

// compareOrders sets Couples, by rising places of X and Y in study A.
func (s *StudyComparison) compareOrders(a, b Findings) {
	order := falling(s.A)
	var inA, inB []Comparison
	for at, x := range order {
		for k, y := range order[at+1:] {
			inA, inB = append(inA, a.Compare(x, y)), append(inB, b.Compare(x, y))
			s.Couples = append(s.Couples, Couple{X: x, Y: y, Neighbours: k == 0,
				Swapped: s.RankA[x] < s.RankA[y] && s.RankB[y] < s.RankB[x]})
		}
	}
	Correct(inA)
	Correct(inB)
	for i := range s.Couples {
		s.Couples[i].InA, s.Couples[i].InB = inA[i], inB[i]
	}
}
