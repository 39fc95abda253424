//go:build gpu

package main

import (
	"errors"
	"os"
	"testing"

	"igcsearch/trainer/gpu/emulator"
)

// TestGPUScripts runs testdata/gpu/*.txtar on the emulated GPU.
func TestGPUScripts(t *testing.T) {
	t.Parallel()
	library, err := emulator.Build("../../trainer/gpu/kernels", false)
	if errors.Is(err, emulator.ErrNoCompiler) && os.Getenv("IGC_REQUIRE_EMULATOR") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, "testdata/gpu", "IGC_CUDA_LIBRARY="+library, "CUDA_VISIBLE_DEVICES=0")
}
