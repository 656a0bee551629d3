-- prefix, id, payload, model, team, weight, prompt tokens, epoch, deadline ms or '', front, limit
-- → 1 queued, 0 known already, -1 the model's queue is full
local id, model, team = ARGV[2], ARGV[4], ARGV[5]
local job = key('job', id)
if redis.call('EXISTS', job) == 1 then return 0 end
local limit = tonumber(ARGV[11])
if limit > 0 and redis.call('ZCARD', key('waiting', model)) >= limit then return -1 end
local t = now_ms()
local order = redis.call('INCR', key('order'))
if ARGV[10] == '1' then order = -order end
-- A log without its job is from before a loss of data: its numbers would swallow new entries.
redis.call('DEL', key('log', id))
redis.call('HSET', job, 'payload', ARGV[3], 'model', model, 'team', team, 'weight', ARGV[6],
  'prompt', ARGV[7], 'epoch', tonumber(ARGV[8]) + 1, 'deadline', ARGV[9], 'order', order,
  'state', 'queued', 'worker', '', 'seq', 0, 'tokens', 0, 'progress', 0, 'crashes', 0,
  'crash_progress', '', 'suspect', '0', 'cancel', '0', 'charged', '0', 'queued_at', t)
push(id, model, team, order, ARGV[9], t)
return 1
