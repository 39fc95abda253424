package analysis

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// confidence is that of all intervals.
const confidence = 0.95

// TInterval returns the mean of values and the half width of its 95 % confidence interval, in the
// unit of the values, by Student's t with n − 1 degrees of freedom. half is NaN if there are fewer
// than two values; mean is NaN if there are none.
func TInterval(values []float64) (mean, half float64) {
	if len(values) < 2 {
		return stat.Mean(values, nil), math.NaN()
	}
	n := float64(len(values))
	mean, std := stat.MeanStdDev(values, nil)
	return mean, quantileT(n-1) * std / math.Sqrt(n)
}

// PairedT is Student's paired t test (Student, "The probable error of a mean", Biometrika 6, 1908).
// From differences in any unit it returns their mean, the half width of its 95 % confidence
// interval, and the two-sided p of the hypothesis that the true mean is zero.
//
// half and p are NaN if there are fewer than two differences, or if all of them are equal, because
// then their deviation is not known. R's t.test refuses both cases too.
func PairedT(differences []float64) (mean, half, p float64) {
	mean, half = TInterval(differences)
	if len(differences) < 2 {
		return mean, math.NaN(), math.NaN()
	}
	n := float64(len(differences))
	_, std := stat.MeanStdDev(differences, nil)
	if isNoise(std, mean) {
		return mean, math.NaN(), math.NaN()
	}
	return mean, half, twoSided(mean*math.Sqrt(n)/std, n-1)
}

// Welch is the t test of two independent samples whose variances may differ (Welch, "The
// generalization of Student's problem when several different population variances are involved",
// Biometrika 34, 1947). It returns mean(a) − mean(b), the half width of its 95 % confidence
// interval, the two-sided p and the degrees of freedom. The last three are NaN if a sample has
// fewer than two values, or if no value differs from the mean of its sample.
func Welch(a, b []float64) (difference, half, p, degrees float64) {
	difference = stat.Mean(a, nil) - stat.Mean(b, nil)
	if len(a) < 2 || len(b) < 2 {
		return difference, math.NaN(), math.NaN(), math.NaN()
	}
	va, vb := stat.Variance(a, nil)/float64(len(a)), stat.Variance(b, nil)/float64(len(b))
	se := math.Sqrt(va + vb)
	if isNoise(se, stat.Mean(a, nil)) {
		return difference, math.NaN(), math.NaN(), math.NaN()
	}
	degrees = (va + vb) * (va + vb) / (va*va/float64(len(a)-1) + vb*vb/float64(len(b)-1))
	return difference, quantileT(degrees) * se, twoSided(difference/se, degrees), degrees
}

// Holm corrects p values for their number and returns them in the same order. If each corrected
// value is compared with alpha, the probability of any false rejection is at most alpha (Holm, "A
// simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
// 1979). NaN stays NaN and does not count.
func Holm(p []float64) []float64 {
	out := slices.Clone(p)
	var order []int
	for i, v := range p {
		if !math.IsNaN(v) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[a], p[b]) })
	largest := 0.
	for rank, i := range order {
		largest = max(largest, min(1, float64(len(order)-rank)*p[i]))
		out[i] = largest
	}
	return out
}

// Detectable returns the smallest true difference, in standard errors of the estimated difference,
// that a two-sided t test finds at the level alpha with the probability power. This is the shift at
// which the noncentral t distribution has the probability power above the critical value.
func Detectable(degrees, alpha, power float64) float64 {
	critical := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: degrees}.Quantile(1 - alpha/2)
	// t is (z + shift)/s, where z is normal and s² = χ²/degrees. The loop below adds the
	// probabilities of z over equally probable values of s.
	const points = 400
	var s [points]float64
	for i := range s {
		p := (float64(i) + 0.5) / points
		s[i] = math.Sqrt(distuv.ChiSquared{K: degrees}.Quantile(p) / degrees)
	}
	low, high := 0., critical
	reached := func(shift float64) bool {
		sum := 0.
		for _, s := range s {
			sum += distuv.UnitNormal.CDF(shift - critical*s)
		}
		return sum >= power*points
	}
	for !reached(high) {
		low, high = high, 2*high
	}
	for high-low > 1e-6*high {
		if middle := (low + high) / 2; reached(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high
}

// boundedInterval returns the 95 % t interval of a percentage with the standard error se. It is
// computed on the scale log(p/(1 − p)), so that it never exceeds 0 or 100 %. On this scale its half
// width is t·se/(p(1 − p)) (the delta method; Agresti, "Categorical Data Analysis", 2013). Far from
// 0 and 100 % it is about the usual interval. A percentage of 0 or 100, which is infinite on this
// scale, is moved by half a picture; the result is NaN if the number of pictures is not known.
func boundedInterval(percent, se, degrees float64, pictures int) (low, high float64) {
	p := percent / 100
	if p <= 0 || p >= 1 {
		if pictures == 0 {
			return math.NaN(), math.NaN()
		}
		half := 0.5 / float64(pictures)
		p = max(half, min(1-half, p))
	}
	x, half := math.Log(p/(1-p)), quantileT(degrees)*se/100/(p*(1-p))
	back := func(x float64) float64 { return 100 / (1 + math.Exp(-x)) }
	return min(percent, back(x-half)), max(percent, back(x+half))
}

// isNoise reports whether a deviation comes only from rounding. Accuracies are ratios of counts,
// and the last digits of their sums vary.
func isNoise(deviation, mean float64) bool { return deviation <= 1e-12*max(1, math.Abs(mean)) }

// quantileT returns the half width of a confidence interval in standard errors.
func quantileT(degrees float64) float64 {
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: degrees}.Quantile((1 + confidence) / 2)
}

// twoSided returns the two-sided p of a t value.
func twoSided(t, degrees float64) float64 {
	return 2 * distuv.StudentsT{Mu: 0, Sigma: 1, Nu: degrees}.CDF(-math.Abs(t))
}
