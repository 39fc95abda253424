//go:build faults

package store_test

// longFaults is the long form of the tests of faults, of make faults.
const longFaults = true
