package client

import "time"

// SetPenalty changes how long a DataNode that failed is left out.
func (c *Client) SetPenalty(penalty time.Duration) { c.penalty = penalty }

// SetFanOut changes how long a chunk is at most that is sent to all its targets at
// once.
func (c *Client) SetFanOut(limit int) { c.fanOut = limit }

// SetRescueAfter changes how long a commit is refused before it is looked why.
func (c *Client) SetRescueAfter(after time.Duration) { c.rescueAfter = after }

// SetReportPatience changes how long a report of a bad replica may take, and how
// long it is waited for when the download is over.
func (c *Client) SetReportPatience(timeout, grace time.Duration) {
	c.reportTimeout, c.reportGrace = timeout, grace
}
