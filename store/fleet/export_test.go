package fleet

import "time"

// Hurry shortens the pauses of a client that cannot reach its coordinator.
func (c *Client) Hurry() { c.again, c.longest = 20*time.Millisecond, 50*time.Millisecond }
