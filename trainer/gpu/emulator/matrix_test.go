//go:build gpu

package emulator_test

import (
	"math"
	"testing"
	"unsafe"

	"gorgonia.org/cu"
)

// matrices prepares the kernels that multiply matrices.
func matrices(f *fixture) {
	var err error
	f.module, err = cu.LoadData(".version 7.8\n.entry product() {}\n.entry product_of_some() {}\n" +
		".entry product_of_float32() {}\n")
	f.ok(err)
}

// TestMatrices: a warp adds a product of matrices, whose numbers are rounded to ten bits
// behind the point, of two to that farther from 0.
func TestMatrices(t *testing.T) {
	inOrders(t, func(f *fixture) {
		matrices(f)
		a, b, sums, want := make([]float32, 16*8), make([]float32, 8*8), make([]float32, 16*8), make([]float32, 16*8)
		for i := range a {
			a[i] = float32(i%13 - 6)
		}
		for i := range b {
			b[i] = float32(i%11 - 5)
		}
		for i := range sums {
			sums[i] = float32(i) / 4
			want[i] = sums[i]
			for k := range 8 {
				want[i] += a[i/8*8+k] * b[8*k+i%8]
			}
		}
		got := f.product(sums, a, b)
		for i := range want {
			if got[i] != want[i] {
				f.Fatalf("row %d, column %d is %g, want %g", i/8, i%8, got[i], want[i])
			}
		}
	})
	f := open(t)
	matrices(f)
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for in, want := range map[float32]float32{1 + 0x1p-11: 1 + 0x1p-10, 1 + 0x1.8p-12: 1, -1 - 0x1p-11: -1 - 0x1p-10,
		2 - 0x1p-12: 2, 0x1.fffp-127: 0x1p-126, inf: inf, nan: nan, math.Float32frombits(0x7fffffff): nan} {
		a, b := make([]float32, 16*8), make([]float32, 8*8)
		a[0], b[0] = in, 1
		got := f.product(make([]float32, 16*8), a, b)[0]
		if got != want && (want == want || got == got) {
			t.Errorf("%x becomes %x, want %x", in, got, want)
		}
	}
}

// product is sums + a·b as a kernel computes it.
func (f *fixture) product(sums, a, b []float32) []float32 {
	f.Helper()
	args := struct{ sums, a, b cu.DevicePtr }{upload(f, sums), upload(f, a), upload(f, b)}
	f.ok(f.launch("product", 1, 32, 0, unsafe.Pointer(&args)))
	return download[float32](f, args.sums, 16*8)
}

// TestMatricesThatAreWrong: all lanes of a warp have to take part, and to round.
func TestMatricesThatAreWrong(t *testing.T) {
	const launchFailed = 719
	for _, name := range []string{"product_of_some", "product_of_float32"} {
		f := open(t)
		matrices(f)
		p := f.memory(1024)
		f.code(launchFailed, f.launch(name, 1, 32, 0, unsafe.Pointer(&p)))
	}
}
