//go:build gpu

package gpu

// Built reports whether this program was built with GPU support.
const Built = true
