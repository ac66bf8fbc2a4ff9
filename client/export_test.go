package client

import "time"

// SetPenalty changes how long a DataNode that failed is left out.
func (c *Client) SetPenalty(penalty time.Duration) { c.penalty = penalty }
