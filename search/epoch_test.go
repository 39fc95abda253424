package search_test

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"igcsearch/search"
)

// TestEpochValues checks that Values lists each field of an Epoch once.
func TestEpochValues(t *testing.T) {
	t.Parallel()
	var e search.Epoch
	listed := map[uintptr]bool{}
	for _, v := range e.Values() {
		listed[reflect.ValueOf(v.At).Pointer()] = true
	}
	fields := reflect.ValueOf(&e).Elem()
	for i := range fields.NumField() {
		if !listed[fields.Field(i).Addr().Pointer()] {
			t.Errorf("Values lacks %s", fields.Type().Field(i).Name)
		}
	}
	if len(listed) != fields.NumField() {
		t.Errorf("Values lists %d fields of %d", len(listed), fields.NumField())
	}
}

// FuzzEpochJSON checks that UnmarshalJSON restores every bit that MarshalJSON has written.
func FuzzEpochJSON(f *testing.F) {
	for _, x := range []float64{
		0, math.Copysign(0, -1), math.SmallestNonzeroFloat64, 0.1, math.MaxFloat64, math.Inf(-1),
	} {
		f.Add(math.Float64bits(x), 3)
	}
	f.Add(uint64(0x7ff8000000000001), 3) // two NaNs
	f.Add(uint64(0xfff0000000000001), 3)
	f.Fuzz(func(t *testing.T, bits uint64, n int) {
		var want, got search.Epoch
		for i, v := range want.Values() {
			switch at := v.At.(type) {
			case *int:
				*at = n + i
			case *float64:
				*at = math.Float64frombits(bits) * float64(i)
			}
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for i, v := range got.Values() {
			switch at := v.At.(type) {
			case *int:
				if *at != n+i {
					t.Errorf("%s: %d, want %d", v.Name, *at, n+i)
				}
			case *float64:
				if w := *want.Values()[i].At.(*float64); math.Float64bits(*at) != math.Float64bits(w) {
					t.Errorf("%s: %x, want %x", v.Name, math.Float64bits(*at), math.Float64bits(w))
				}
			}
		}
	})
}
