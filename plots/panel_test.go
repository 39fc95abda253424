package plots

import (
	"math"
	"strings"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/recorder"
	"pgregory.net/rapid"
)

// The layout is tested from inside: a figure shows it, but not at the sizes
// where it goes wrong.

var lengths = rapid.Custom(func(t *rapid.T) vg.Length { return vg.Length(rapid.IntRange(0, 200).Draw(t, "pt")) })

func TestSpread(t *testing.T) {
	t.Parallel()
	t.Run("labels keep their distances, stay inside and move no more than they must", rapid.MakeCheck(func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		at, needs := make([]vg.Length, n), make([]vg.Length, n)
		room := vg.Length(0)
		for i := range n {
			at[i] = lengths.Draw(t, "gap")
			needs[i] = vg.Length(rapid.IntRange(1, 30).Draw(t, "need"))
			if i > 0 {
				at[i] += at[i-1]
				room += needs[i]
			}
		}
		low, high := lengths.Draw(t, "low"), vg.Length(rapid.IntRange(0, 2500).Draw(t, "high"))
		out := spread(at, needs, low, high)
		if fits := low+room <= high; fits != (out != nil) {
			t.Fatalf("needs %v between %v and %v: got %v", room, low, high, out)
		}
		if out == nil {
			return
		}
		const eps = 1e-9
		for i := range out {
			if out[i] < low-eps || out[i] > high+eps {
				t.Fatalf("label %d at %v, outside %v to %v", i, out[i], low, high)
			}
			if i > 0 && out[i]-out[i-1] < needs[i]-eps {
				t.Fatalf("labels %d and %d are %v apart, need %v", i-1, i, out[i]-out[i-1], needs[i])
			}
			// Least squares: no label alone can come nearer to its tick.
			step := 0.01 * vg.Length(math.Copysign(1, float64(at[i]-out[i])))
			free := out[i]+step >= low && out[i]+step <= high &&
				(i == 0 || out[i]+step-out[i-1] >= needs[i]) && (i == n-1 || out[i+1]-out[i]-step >= needs[i+1])
			if free && math.Abs(float64(at[i]-out[i])) > 0.02 {
				t.Fatalf("label %d at %v could come nearer to %v", i, out[i], at[i])
			}
		}
	}))
}

func TestSegment(t *testing.T) {
	t.Parallel()
	t.Run("a line crosses a box if one of its points lies in it", rapid.MakeCheck(func(t *rapid.T) {
		point := func() vg.Point { return vg.Point{X: lengths.Draw(t, "x"), Y: lengths.Draw(t, "y")} }
		o := segment{point(), point()}
		a := point()
		box := vg.Rectangle{Min: a, Max: a.Add(vg.Point{X: 20, Y: 30})}
		const steps = 2000
		var near, in bool // within 0.2 pt, which is coarser than the steps
		for i := range steps + 1 {
			p := o.from.Add(o.to.Sub(o.from).Scale(vg.Length(i) / steps))
			in = in || p.X >= box.Min.X && p.X <= box.Max.X && p.Y >= box.Min.Y && p.Y <= box.Max.Y
			near = near || p.X >= box.Min.X-0.2 && p.X <= box.Max.X+0.2 && p.Y >= box.Min.Y-0.2 && p.Y <= box.Max.Y+0.2
		}
		if got := o.crosses(box); in && !got || got && !near {
			t.Fatalf("%v and %v: %v, points say %v", o, box, got, in)
		}
	}))
}

func TestNiceTicks(t *testing.T) {
	t.Parallel()
	t.Run("are two or more, evenly spaced inside the span, told apart", rapid.MakeCheck(func(t *rapid.T) {
		low := rapid.Float64Range(0, 100).Draw(t, "low")
		s := span{low, low + rapid.Float64Range(1e-5, 1000).Draw(t, "range")}
		limit := rapid.IntRange(0, 12).Draw(t, "limit")
		ticks := niceTicks{limit: limit}.Ticks(s.low, s.high)
		if len(ticks) < 2 || len(ticks) > max(limit, 5) {
			t.Fatalf("%v: %d ticks, limit %d", s, len(ticks), limit)
		}
		labels := map[string]bool{}
		for i, k := range ticks {
			if slack := 1e-6 * (s.high - s.low); k.Value < s.low-slack || k.Value > s.high+slack {
				t.Fatalf("%v: tick at %g", s, k.Value)
			}
			if i > 0 && math.Abs(k.Value-ticks[i-1].Value-(ticks[1].Value-ticks[0].Value)) > 1e-6*(s.high-s.low) {
				t.Fatalf("%v: uneven at %g", s, k.Value)
			}
			labels[k.Label] = true
		}
		if len(labels) != len(ticks) {
			t.Fatalf("%v: labels %v", s, ticks)
		}
	}))
}

func TestTicksOfWholeNumbers(t *testing.T) {
	t.Parallel()
	var labels []string
	for _, k := range (niceTicks{limit: 12, whole: true}).Ticks(2, 6) { // the finest step that fits is 0.5
		labels = append(labels, k.Label)
	}
	if got := strings.Join(labels, " "); got != "2 3 4 5 6" {
		t.Errorf("got %s", got)
	}
}

// TestWrapEnds: where a figure has too little room, a frame may be of any size.
func TestWrapEnds(t *testing.T) {
	style := Options{}.typeface().label
	const label = "secondary partitions M"
	for _, length := range []vg.Length{vg.Length(math.Inf(1)), 1e300} {
		if got := wrap(style, label, length); got != label {
			t.Errorf("for a length of %g the label is %q", length, got)
		}
	}
	for _, length := range []vg.Length{vg.Length(math.Inf(-1)), vg.Length(math.NaN()), -1} {
		wrap(style, label, length)
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	label := "test accuracy, CIFAR-100 (20 superclasses) (%)"
	for _, c := range []struct {
		name, label string
		length      vg.Length
		want        string
	}{
		{"what fits stays one line", label, 200, label},
		{"lines are about equally long", label, 120, "test accuracy, CIFAR-100\n(20 superclasses) (%)"},
		{"a word is never broken", "superclasses", 10, "superclasses"},
		{"no length is no label", label, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := wrap(typefaces[Serif].label, c.label, c.length); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLooks(t *testing.T) {
	t.Parallel()
	t.Run("differ in colour and dashes, and in colour and marker, for 35 series", func(t *testing.T) {
		type key struct{ a, b int }
		dashed, marked := map[key]bool{}, map[key]bool{}
		for i := range 35 {
			dashed[key{i % len(palette), i % len(dashes)}] = true
			marked[key{i % len(palette), i % len(shapes)}] = true
		}
		if len(dashed) != 35 || len(marked) != 35 {
			t.Errorf("%d and %d different looks", len(dashed), len(marked))
		}
	})
}

func TestCheckInside(t *testing.T) {
	t.Parallel()
	style := typefaces[Serif].label
	width, page := style.Width("accuracy"), vg.Point{X: 100, Y: 80}
	for _, c := range []struct {
		name   string
		at     vg.Point
		angle  float64
		inside bool
	}{
		{"in the middle", vg.Point{X: 40, Y: 40}, 0, true},
		{"up to the right edge", vg.Point{X: 100 - width, Y: 40}, 0, true},
		{"over the right edge", vg.Point{X: 101 - width, Y: 40}, 0, false},
		{"over the lower edge", vg.Point{X: 40, Y: 0.5}, 0, false},
		{"over the upper edge", vg.Point{X: 40, Y: 76}, 0, false},
		{"turned, up to the upper edge", vg.Point{X: 40, Y: 80 - width}, math.Pi / 2, true},
		{"turned, over the upper edge", vg.Point{X: 40, Y: 81 - width}, math.Pi / 2, false},
		{"turned, over the left edge", vg.Point{X: 4, Y: 10}, math.Pi / 2, false},
	} {
		t.Run("a text "+c.name, func(t *testing.T) {
			var drawn recorder.Canvas
			drawn.Push()
			drawn.Translate(vg.Point{X: 7, Y: 3})
			drawn.Pop()
			drawn.Push()
			drawn.Translate(c.at)
			drawn.Rotate(c.angle)
			drawn.FillString(plot.DefaultTextHandler.Cache().Lookup(style.Font, style.Font.Size), vg.Point{}, "accuracy")
			drawn.Pop()
			if err := checkInside(drawn.Actions, page); (err == nil) != c.inside {
				t.Errorf("got %v", err)
			}
		})
	}
}
