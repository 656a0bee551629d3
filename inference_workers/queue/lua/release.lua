-- prefix, worker, crashed, forget the worker, then some jobs (none: all that it holds)
-- → jobs given back or ended
local worker, crashed = ARGV[2], ARGV[3] == '1'
local t = now_ms()
local touched = {}
if #ARGV == 4 then
  touched = give_back_all(worker, crashed, t)
else
  for i = 5, #ARGV do
    if redis.call('HGET', key('job', ARGV[i]), 'worker') == worker
        and give_back(ARGV[i], crashed, t) then
      touched[#touched + 1] = ARGV[i]
    end
  end
end
if ARGV[4] == '1' then drop_worker(worker) end
return touched
